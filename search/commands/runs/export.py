"""`hostguide export`: write the crystals of a run in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.common import FormulaOption, RunArgument, console


def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder for the files", file_okay=False)],
    kind: Annotated[str, typer.Option("--format", help="cif, poscar, res, extxyz, ase-db or optimade-json")] = "cif",
    e_d_below: Annotated[float | None, typer.Option("--e-d-below", help="Maximum E_d, eV/atom")] = None,
    top: Annotated[int, typer.Option(min=1, help="Maximum number of crystals")] = 1_000_000,
    formula: FormulaOption = None,
    distinct: Annotated[
        bool, typer.Option("--distinct/--all", help="Write each distinct crystal once, or every candidate")
    ] = True,
) -> None:
    """Export the crystals of a run for other tools, lowest E_d first."""
    from search.reporting.export import export as write_files
    from search.storage.ranking import rank
    from search.storage.results import load_results

    frame = load_results(run, structures=False)
    best = rank(frame, top=top, formula=formula, distinct=distinct, e_d_below=e_d_below)
    paths = write_files(best, kind, out)
    console.print(f"{len(best)} crystals in {paths[0] if len(paths) == 1 else out}", soft_wrap=True)
