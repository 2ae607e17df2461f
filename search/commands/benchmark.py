"""`hostguide benchmark reconstruct` as a person sees it: resumable, one line a case in a file beside the figures."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.potentials.chgnet.potential import CHGNetPotential
from model.stages import Generator
from search.benchmark.methods import make_method
from search.benchmark.reconstruct import Attempt, Case, Record, load_cases, reconstruct
from search.benchmark.summary import SUMMARY, summarise
from search.benchmark.training_hosts import Prototypes


def run_benchmark(
    console: Console,
    data: Path,
    *,
    split: str,
    guest: str | None,
    limit: int | None,
    methods: Sequence[str],
    samples: int,
    seed: int,
    rank: bool,
    residual: bool,
    stability: bool,
    train: Path | None,
    weights: str | None,
    shard: str,
    json_file: Path | None,
) -> dict[str, Any]:
    """Reconstruct the crystals of a file on one core, print tables and write the figures as JSON.

    Every case is kept in ``json_file`` with the ending ``.jsonl`` as soon as it is done; the same command, or another
    share of it, goes on from there.
    """
    torch.set_num_threads(1)
    part, parts = _shard(shard)
    cases = load_cases(data, split=split, guest=guest, limit=limit)
    generator = Generator(weights)
    prototypes = _prototypes(console, train or data, cases)
    tried = {name: make_method(name, generator, prototypes) for name in methods}
    header = {
        "data": hashlib.sha256(data.read_bytes()).hexdigest()[:16],
        "split": split,
        "samples": samples,
        "seed": seed,
        "rank": rank,
        "residual": residual,
        "stability": stability,
        "score_model": generator.version,
    }
    log = Log(json_file and json_file.with_suffix(".jsonl"), header)
    potential = CHGNetPotential() if rank or stability else None
    todo = [
        (name, case)
        for case in cases[part - 1 :: parts]
        for name in tried
        if (name, case.name, case.guest) not in log.records
    ]
    with Progress(console=console, transient=True) as bar:
        for name, case in bar.track(todo, description="crystals"):
            record = reconstruct(
                case,
                name,
                tried[name],
                samples=samples,
                seed=seed,
                potential=potential,
                stability=stability,
                denoiser=generator.network if residual else None,
                new_host=prototypes.is_new(case.host) if prototypes else None,
            )
            log.add(record)
    chosen = {name: log.chosen(name, cases) for name in tried}
    found = {name: summarise(records) for name, records in chosen.items() if records}
    first = found[methods[0]] if methods[0] in found else summarise([])
    result = {
        **first,
        "methods": found,
        **header,
        "cases": len(cases),
        "machine": f"{platform.machine()}, one core, torch {version('torch')}",
    }
    _show(console, found, {name: f"{len(records)} of {len(cases)}" for name, records in chosen.items()})
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    return result


class Log:
    """Records on disk, one JSON line each; the first line says what they have in common.

    Raises:
        ValueError: the file holds a benchmark with other settings.
    """

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        self.path = path
        self.records: dict[tuple[str, str, str], Record] = {}
        if path is None:
            return
        lines = path.read_text().splitlines() if path.exists() else []
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(header) + "\n")
            return
        other = json.loads(lines[0])
        if other != header:
            changed = [
                f"{key} {other.get(key)!r} (now {value!r})" for key, value in header.items() if other.get(key) != value
            ]
            raise ValueError(f"{path} holds a benchmark with {', '.join(changed)}; choose another --json, or remove it")
        for line in lines[1:]:
            try:
                self._keep(_record(json.loads(line)))
            except json.JSONDecodeError:
                continue  # a line that was being written when the process was killed: its case is done again

    def add(self, record: Record) -> None:
        """Keep a record, on disk first."""
        if self.path is not None:
            torn = self.path.read_bytes()[-1:] != b"\n"
            with self.path.open("a") as file:
                file.write("\n" * torn + json.dumps(asdict(record)) + "\n")
        self._keep(record)

    def chosen(self, method: str, cases: Sequence[Case]) -> list[Record]:
        """Records of these cases, as far as there are."""
        keys = [(method, case.name, case.guest) for case in cases]
        return [self.records[key] for key in keys if key in self.records]

    def _keep(self, record: Record) -> None:
        self.records[record.method, record.case, record.guest] = record


def _record(content: dict[str, Any]) -> Record:
    return Record(**{**content, "attempts": tuple(Attempt(**one) for one in content["attempts"])})


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"--shard is k/n, the k-th of n shares, for example 1/4; got {text!r}")
    return int(part), int(parts)


def _prototypes(console: Console, path: Path, cases: Sequence[Case]) -> Prototypes | None:
    """The training crystals, or None, with a word, where the file has none."""
    try:
        return Prototypes(path, [(case.host, int(case.mask.sum())) for case in cases])
    except ValueError as error:
        console.print(f"{error}: whether hosts are new is not asked.")
        return None


def _show(console: Console, found: dict[str, dict[str, Any]], done: dict[str, str]) -> None:
    table = Table("method", "guest", *(key.replace("_", " ") for key in SUMMARY), "raw ± over runs", "cases")
    for name, result in found.items():
        for guest, row in {**result["guests"], "mean": result["summary"]}.items():
            cases = str(row["cases"]) if "cases" in row else done[name]
            numbers = [_number(row[key]) for key in (*SUMMARY, "raw_match_std")]
            table.add_row(name if guest == next(iter(result["guests"])) else "", guest, *numbers, cases)
    console.print(table)
    ranking = (
        "ranked_single_point",
        "ranked_residual",
        "oracle_relaxed",
        "preferred_elsewhere",
        "sought_in_vain",
        "unfinished",
        "max_force_median",
        "max_force_75",
        "energy_drop_median",
        "energy_drop_75",
    )
    lines = Table("means over the guests", *found)
    for key in ranking:
        lines.add_row(key.replace("_", " "), *(_number(one["summary"][key], digits=4) for one in found.values()))
    console.print(lines)
    for name, result in found.items():
        bins = Table(f"bins of {name}", "cases", "raw match", "ranked match", "oracle match", "rmse median")
        for label, row in result["bins"].items():
            bins.add_row(label, str(row["cases"]), *(_number(row[k]) for k in list(row)[1:]))
        console.print(bins)


def _number(value: float | None, *, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
