"""`hostguide benchmark`: how often removed guests are recovered, and how often a search finds known crystals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from search.commands.common import SeedOption, WeightsOption, console, number, parse_share, use_threads

if TYPE_CHECKING:
    from search.benchmark.csp import CspRecord

app = typer.Typer(help="Measure how good the score model and the search are.", no_args_is_help=True)


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


@app.command("csp")
def csp(
    targets: Annotated[
        Path, typer.Argument(help="Parquet of crystals, or CSV with material_id (pretty_formula, nsites, spacegroup)")
    ],
    json_file: Annotated[
        Path, typer.Option("--json", help="File for the results; the searches are stored in the folder beside it")
    ],
    seconds: Annotated[float | None, typer.Option(min=0, help="CPU seconds of each target", show_default=False)] = None,
    relaxations: Annotated[
        int | None, typer.Option(min=1, help="Relaxed crystals of each target", show_default=False)
    ] = None,
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide the phases of the target's chemical system, and the formulas of a CSV")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Only this split of a Parquet file")] = None,
    structures: Annotated[Path | None, typer.Option(help="Parquet with the crystals of a CSV")] = None,
    min_atoms: Annotated[int, typer.Option(min=1, help="Of a target's cell")] = 1,
    max_atoms: Annotated[int, typer.Option(min=1, help="Of a target's cell")] = 200,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of targets, always the same ones")] = None,
    generator: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given several times (default: all)")
    ] = None,
    weights: WeightsOption = None,
    seed: SeedOption = 0,
    shard: Annotated[str, typer.Option(help="k/n: search the k-th of n parts, with the same --json")] = "1/1",
) -> None:
    """Search known compounds from the atoms of their cells alone, and count how often the known crystal is found.

    The same command resumes; a longer --seconds continues.
    """
    import math

    from search.benchmark.csp import CspSettings, run_csp
    from search.benchmark.csp_targets import read_targets

    if seconds is None and relaxations is None:
        raise ValueError("give --seconds or --relaxations, the budget of each target")
    use_threads()
    share = parse_share("--shard", shard)
    chosen, hidden = read_targets(
        targets, structures=structures, split=split, min_atoms=min_atoms, max_atoms=max_atoms, limit=limit
    )
    settings = CspSettings(
        seconds=math.inf if seconds is None else seconds,
        relaxations=math.inf if relaxations is None else relaxations,
        blind=blind,
        generators=tuple(generator or ()),
        weights=weights,
        seed=seed,
    )

    def say(record: CspRecord) -> None:
        where = f"found as number {record.rank} by {record.generator}" if record.rank else "not found"
        console.print(f"{record.name} {record.formula} ({record.atoms} atoms, {record.seconds:.0f} s): {where}")

    result = run_csp(chosen, settings, hidden=hidden, out=json_file, share=share, report=say)
    summary = Table("", "")
    for key, value in result["summary"].items():
        summary.add_row(key.replace("_", " "), number(value, ".3g", "–") if isinstance(value, float) else str(value))
    console.print(summary)


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
