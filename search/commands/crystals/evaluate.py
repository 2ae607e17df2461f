"""`hostguide evaluate`: single-point evaluation of crystals from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from model.potentials.catalog import DEFAULT
from search.commands.common import (
    INCOMPLETE,
    CrystalFiles,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    PotentialOption,
    ReferenceOption,
    Row,
    ThreadsOption,
    console,
    crystal_table,
    e_d_cell,
    load_potential,
    number,
    print_json,
    products_cell,
    say_of,
    say_warnings,
)

if TYPE_CHECKING:
    from model.potentials.interface import Evaluation

CHUNK = 32  # crystals evaluated between updates of the progress bar


def evaluate(
    files: CrystalFiles,
    out: Annotated[Path | None, typer.Option(help="Output file: .csv, or .extxyz with forces and stress")] = None,
    overwrite: OverwriteOption = False,
    potential: PotentialOption = DEFAULT,
    reference: ReferenceOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Compute energy, E_d, forces, stress and moments without relaxation; exits with 1 if any evaluation fails."""
    from search.storage.crystal_files import read_files
    from search.studies.crystal_results import (
        check_evaluations_file,
        evaluation_row,
        unread_evaluation_row,
        write_evaluations,
    )
    from search.studies.crystal_stability import CrystalStability

    stability = CrystalStability(potential, reference)
    read = read_files(files)
    crystals = read.crystals
    if out is not None:
        check_evaluations_file(out, overwrite=overwrite)
    say_warnings(*crystals)
    model = load_potential(potential, device, threads)
    results: list[Evaluation] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("evaluated", total=len(crystals))
        for start in range(0, len(crystals), CHUNK):
            some = crystals[start : start + CHUNK]
            results += model.evaluate([one.crystal for one in some])
            bar.advance(task, len(some))
    rows = [evaluation_row(one, result, stability) for one, result in zip(crystals, results, strict=True)]
    rows += [unread_evaluation_row(one) for one in read.unreadable]
    if as_json:
        print_json("evaluate", rows)
    else:
        console.print(_table(rows))
    say_of((row["name"], row["problem"]) for row in rows if row["problem"])
    if out is not None:
        write_evaluations(out, rows, crystals, results)
        console.print(f"Results: {out}", soft_wrap=True)
    failed = sum(bool(row["problem"]) for row in rows)
    if failed:
        console.print(f"{failed} of {len(rows)} could not be evaluated.")
        raise typer.Exit(INCOMPLETE)


def _table(rows: Sequence[Row]) -> Table:
    """Table of results, failures first."""
    columns: dict[str, Callable[[Row], str]] = {
        "E eV/atom": lambda row: number(row["energy"], ".4f", "–"),
        "E_d meV/atom": e_d_cell,
        "max force eV/Å": lambda row: number(row["max_force"], ".3f", "–"),
        "pressure GPa": lambda row: number(row["pressure_gpa"], ".2f", "–"),
        "total moment μB": lambda row: number(row["magnetic_moment"], ".2f", "–"),
        "products": products_cell,
        "known": lambda row: row["known"],
    }
    return crystal_table("Single points", columns, sorted(rows, key=lambda row: not row["problem"]))
