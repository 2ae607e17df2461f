"""`hostguide benchmark`: how often the score model recovers removed guests."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from search.commands.common import SeedOption, WeightsOption, console, number, parse_share, use_threads

if TYPE_CHECKING:
    from search.benchmark.reconstruct import Case
    from search.benchmark.training_hosts import TrainingCrystals

app = typer.Typer(help="Measure how good the score model and its samplers are.", no_args_is_help=True)


@app.command("reconstruct")
def reconstruct(
    data: Annotated[
        Path, typer.Option(help="Parquet of crystals with the columns split and guest, see docs/training.md")
    ],
    split: Annotated[str, typer.Option(help="Split from which crystals are taken")] = "test",
    guest: Annotated[str | None, typer.Option(help="Only this guest element")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of crystals per guest element")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="May be given several times: ancestral, symmetric+heun:steps=12, random, ...; see docs/training.md"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Attempts per crystal")] = 4,
    seed: SeedOption = 0,
    rank: Annotated[bool, typer.Option(help="Rank attempts by energy, before and after relaxing the guests")] = True,
    residual: Annotated[bool, typer.Option(help="Also rank them by the score model's residual")] = False,
    stability: Annotated[bool, typer.Option(help="Relax all atoms of each first attempt: F_max and ΔE")] = False,
    train: Annotated[
        Path | None, typer.Option(help="Training crystals, to tell which hosts are new (default: those in --data)")
    ] = None,
    weights: WeightsOption = None,
    shard: Annotated[str, typer.Option(help="k/n: process the k-th of n parts, with the same --json")] = "1/1",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the results; cases in its .jsonl are not repeated")
    ] = None,
) -> None:
    """Remove all guests from known crystals, place them again, and count how often the crystal is recovered.

    With --json, every case is stored as soon as it is done; rerun the same command to resume.
    """
    from model.potentials.catalog import DEFAULT, load_potential
    from model.stages import CrystalMaker
    from search.benchmark.log import RecordLog
    from search.benchmark.methods import make_method
    from search.benchmark.reconstruct import load_cases
    from search.benchmark.reconstruct import reconstruct as reconstruct_case
    from search.benchmark.summary import summarise

    use_threads()
    part, parts = parse_share("--shard", shard)
    cases = load_cases(data, split=split, guest=guest, limit=limit)
    maker = CrystalMaker(weights)
    prototypes = _prototypes(train or data, cases)
    methods = {name: make_method(name, maker, prototypes) for name in method or ["ancestral"]}
    header = {
        "data": hashlib.sha256(data.read_bytes()).hexdigest()[:16],
        "split": split,
        "samples": samples,
        "seed": seed,
        "rank": rank,
        "residual": residual,
        "stability": stability,
        "score_model": maker.version,
    }
    log = RecordLog(json_file and json_file.with_suffix(".jsonl"), header)
    potential = load_potential(DEFAULT) if rank or stability else None
    todo = [
        (name, case)
        for case in cases[part - 1 :: parts]
        for name in methods
        if (name, case.name, case.guest) not in log.records
    ]
    with Progress(console=console, transient=True) as bar:
        for name, case in bar.track(todo, description="crystals"):
            record = reconstruct_case(
                case,
                name,
                methods[name],
                samples=samples,
                seed=seed,
                potential=potential,
                stability=stability,
                denoiser=maker.network if residual else None,
                new_host=prototypes.is_new(case.host) if prototypes else None,
            )
            log.add(record)
    done = {name: log.chosen(name, cases) for name in methods}
    found = {name: summarise(records) for name, records in done.items() if records}
    _show(found, {name: f"{len(records)} of {len(cases)}" for name, records in done.items()})
    if json_file is not None:
        first = found.get(next(iter(methods)), summarise([]))
        machine = f"{platform.machine()}, one core, torch {version('torch')}"
        result = {**first, "methods": found, **header, "cases": len(cases), "machine": machine}
        json_file.write_text(json.dumps(result, indent=2) + "\n")


def _prototypes(path: Path, cases: Sequence[Case]) -> TrainingCrystals | None:
    """The training crystals; prints a message and returns None if the file has none."""
    from search.benchmark.training_hosts import TrainingCrystals

    try:
        return TrainingCrystals(path, [(case.host, int(case.mask.sum())) for case in cases])
    except ValueError as error:
        console.print(f"{error}: skipping the check whether hosts were in the training set.")
        return None


def _show(found: dict[str, dict[str, Any]], done: dict[str, str]) -> None:
    from search.benchmark.summary import SUMMARY

    table = Table("method", "guest", *(key.replace("_", " ") for key in SUMMARY), "raw ± over runs", "cases")
    for name, result in found.items():
        for guest, row in {**result["guests"], "mean": result["summary"]}.items():
            cases = str(row["cases"]) if "cases" in row else done[name]
            numbers = [number(row[key], ".3f") for key in (*SUMMARY, "raw_match_std")]
            table.add_row(name if guest == next(iter(result["guests"])) else "", guest, *numbers, cases)
    console.print(table)
    ranking = (
        "ranked_single_point",
        "ranked_residual",
        "oracle_relaxed",
        "potential_prefers_other",
        "not_recovered",
        "unfinished",
        "max_force_median",
        "max_force_75",
        "energy_drop_median",
        "energy_drop_75",
    )
    lines = Table("mean over guest elements", *found)
    for key in ranking:
        lines.add_row(key.replace("_", " "), *(number(one["summary"][key], ".4f") for one in found.values()))
    console.print(lines)
    for name, result in found.items():
        bins = Table(f"{name} by group", "cases", "raw match", "ranked match", "oracle match", "rmse median")
        for label, row in result["bins"].items():
            bins.add_row(label, str(row["cases"]), *(number(row[k], ".3f") for k in list(row)[1:]))
        console.print(bins)
