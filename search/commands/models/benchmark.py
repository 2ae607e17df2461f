"""`hostguide benchmark`: how often guests and whole crystals are recovered, and how good voltages are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from search.benchmark.csp import CspRecord

app = typer.Typer(
    help="Measure how good the score model, the search and the voltages of hosts are.", no_args_is_help=True
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
    until_found: Annotated[
        bool, typer.Option("--until-found", help="End a search as soon as the known crystal is found")
    ] = False,
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
        until_found=until_found,
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
