"""`hostguide benchmark`: how often the score model recovers removed guests, and how good voltages are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from model.potentials.catalog import DEFAULT
from search.commands.common import (
    PotentialOption,
    SeedOption,
    WeightsOption,
    console,
    number,
    parse_share,
    require_elements,
    use_threads,
)

app = typer.Typer(
    help="Measure how good the score model, its samplers and the voltages of hosts are.", no_args_is_help=True
)


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
    from search.benchmark.run import BenchmarkSettings, run_benchmark

    use_threads()
    settings = BenchmarkSettings(
        split=split, samples=samples, seed=seed, rank=rank, residual=residual, stability=stability
    )
    share = parse_share("--shard", shard)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("crystals", total=None)
        result = run_benchmark(
            data,
            method or ["ancestral"],
            settings,
            guest=guest,
            limit=limit,
            train=train,
            weights=weights,
            share=share,
            out=json_file,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _show(result["methods"], result["cases"])
    if not result["hosts_compared"]:
        console.print(f"{data} has no crystal of split 'train': give --train to tell which hosts are new.")


@app.command("electrodes")
def electrodes(
    table: Annotated[Path, typer.Argument(help="Parquet of hosts, ions and voltages, see docs/electrodes.md")],
    structures: Annotated[Path, typer.Option(help="Parquet of crystals with the column material_id")],
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of pairs")] = None,
    ion: Annotated[list[str] | None, typer.Option(help="Only this ion; may be given several times")] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="Maximum number of atoms of a host")] = 40,
    names: Annotated[
        Path | None,
        typer.Option("--list", help="Text file with one battery_id a line: only these pairs, in this order"),
    ] = None,
    method: Annotated[str, typer.Option(help="How guests are placed: all, inpainting, voids or random")] = "all",
    potential: PotentialOption = DEFAULT,
    weights: WeightsOption = None,
    seed: SeedOption = 0,
    shard: Annotated[str, typer.Option(help="k/n: compute the k-th of n parts, with the same --json")] = "1/1",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the results; pairs in its .jsonl are not repeated")
    ] = None,
) -> None:
    """Fill known hosts and compare voltages, volume changes and guest sites with what is known of them.

    With --json, every pair is stored as soon as it is done; rerun the same command to resume.
    """
    from search.electrodes.benchmark import run_benchmark

    use_threads()
    require_elements("--ion", ion or [])
    if names is not None and not names.is_file():
        raise ValueError(f"--list {names} does not exist")
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("pairs", total=None)
        result = run_benchmark(
            table,
            structures,
            method=method,
            ions=ion or [],
            max_atoms=max_atoms,
            limit=limit,
            names=names.read_text().split() if names else None,
            share=parse_share("--shard", shard),
            weights=weights,
            potential=potential,
            seed=seed,
            out=json_file,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _show_electrodes(result)


def _show_electrodes(result: dict[str, Any]) -> None:
    summary = result["summary"]
    table = Table("voltages", "pairs", "MAE V", "median V", "bias V", "corrected MAE V", "median V", "bias V")

    def line(name: str, row: dict[str, Any]) -> None:
        numbers = [
            number(part[key], ".3f", "–") for part in (row, row["corrected"]) for key in ("mae", "median", "bias")
        ]
        table.add_row(name, str(row["pairs"]), *numbers)

    line("all", summary)
    for group in ("by_split", "by_ion", "by_metal", "by_anion"):
        for name, row in result[group].items():
            line(name, row)
    console.print(table)
    for part, about in (("potential", "of the potential"), ("sites", "of the sites")):
        mae, median, bias = (number(summary[part][key], "+.3f", "–") for key in ("mae", "median", "bias"))
        console.print(
            f"Error {about}, {summary['known']} pairs whose filled crystal is known: MAE {mae} V, median {median} V, "
            f"bias {bias} V",
            soft_wrap=True,
        )
    console.print(
        f"Sites found, or lower in energy: {number(summary['sites_found'], '.1%', '–')}; "
        f"{number(summary['seconds_median'], '.1f', '–')} CPU seconds a pair in the median; "
        f"{summary['failed']} of {summary['pairs'] + summary['failed']} pairs failed.",
        soft_wrap=True,
    )


def _show(found: dict[str, dict[str, Any]], all_cases: int) -> None:
    from search.benchmark.summary import SUMMARY

    table = Table("method", "guest", *(key.replace("_", " ") for key in SUMMARY), "raw ± over runs", "cases")
    for name, result in found.items():
        done = sum(row["cases"] for row in result["guests"].values())
        for guest, row in {**result["guests"], "mean": result["summary"]}.items():
            cases = str(row["cases"]) if "cases" in row else f"{done} of {all_cases}"
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
