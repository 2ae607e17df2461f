"""`hostguide benchmark reconstruct` as a person sees it."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.potential import CHGNetPotential
from model.sampler import AncestralSettings
from model.stages import Generator
from search.reconstruct import load_cases, reconstruct, summarise


def run_benchmark(
    console: Console,
    data: Path,
    *,
    split: str,
    guest: str | None,
    limit: int | None,
    samples: int,
    seed: int,
    rank: bool,
    weights: Path | None,
    json_file: Path | None,
) -> dict[str, Any]:
    """Reconstruct the crystals of a file on one core, print a table and write the figures as JSON."""
    torch.set_num_threads(1)
    cases = load_cases(data, split=split, guest=guest, limit=limit)
    generator = Generator(str(weights) if weights else None)
    sampler = AncestralSettings()
    with Progress(console=console, transient=True) as bar:
        progress = bar.add_task("crystals", total=len(cases))
        attempts = reconstruct(
            cases,
            generator,
            sampler,
            samples=samples,
            seed=seed,
            potential=CHGNetPotential() if rank else None,
            report=lambda _: bar.advance(progress),
        )
    figures = {
        **summarise(attempts),
        "score_model": generator.version,
        "sampler": sampler.model_dump(),
        "samples": samples,
        "seed": seed,
        "machine": f"{platform.machine()}, one core, torch {version('torch')}",
    }
    console.print(_table(figures))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _table(figures: dict[str, Any]) -> Table:
    names = ("cases", "raw_match", "ranked_match", "oracle_match", "rmse_median", "evaluations", "seconds_per_sample")
    table = Table("guest", *(name.replace("_", " ") for name in names))
    for guest, row in {**figures["guests"], "mean": figures["summary"]}.items():
        table.add_row(guest, *(_number(row.get(name)) for name in names))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
