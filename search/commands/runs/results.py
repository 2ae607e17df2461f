"""`hostguide results`: the best crystals of a run as a table and as CIF files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from search.commands.common import FormulaOption, RunArgument, console
from search.storage.paths import RunPath, beside, run_path


def results(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of crystals to show")] = 20,
    formula: FormulaOption = None,
    role: Annotated[
        Literal["new", "from_host"] | None, typer.Option(help="Only new crystals, or only those from hosts")
    ] = None,
    all_candidates: Annotated[
        bool, typer.Option("--all", help="Show every candidate, including duplicates of the same crystal")
    ] = False,
    cif: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the CIFs (default: RUN/best, or ./NAME/best for a run in an object store)",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Show the best crystals of a run and write them as CIF files."""
    place = run_path(run)
    folder = cif or beside(place) / "best"
    show_best(place, cif=folder, top=top, formula=formula, role=role, distinct=not all_candidates)


def show_best(
    run: RunPath,
    *,
    cif: Path | None,
    top: int,
    formula: str | None = None,
    role: str | None = None,
    distinct: bool = True,
) -> None:
    """Print the best crystals of a run; write them to the folder ``cif``, or print the command that does."""
    from search.reporting.tables import results_table
    from search.storage.cif import write_cifs
    from search.storage.ranking import new_below_hull, rank
    from search.storage.results import load_results
    from search.studies.verify import load_verification

    frame = load_results(run)
    best = rank(frame, top=top, formula=formula, role=role, distinct=distinct)
    if best.empty:
        console.print("No relaxed crystal matches.")
        return
    verdicts = {one["name"]: one["grade"] for one in load_verification(run)}
    console.print(results_table(best, verdicts))
    console.print(
        f"{len(new_below_hull(frame))} distinct, polished crystals of the run lie below the hull and are not in the "
        "library of known phases.",
        soft_wrap=True,
    )
    if cif is None:
        console.print(f"CIFs of these crystals: hostguide results {shlex.quote(str(run))}", soft_wrap=True)
        return
    write_cifs(best, cif)
    console.print(f"CIFs of these {len(best)} crystals: {cif}", soft_wrap=True)
