"""`hostguide results`: the best crystals of a run as a table and as CIF files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from search.commands.common import FormulaOption, JsonOption, RunArgument, console, print_json
from search.storage.paths import RunPath, beside, run_path

if TYPE_CHECKING:
    import pandas as pd


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
    no_cif: Annotated[bool, typer.Option("--no-cif", help="Write no CIFs")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the best crystals of a run and write them as CIF files."""
    place = run_path(run)
    folder = None if no_cif else cif or beside(place) / "best"
    best = best_of(place, cif=folder, top=top, formula=formula, role=role, distinct=not all_candidates)
    if as_json:
        print_json("results", best.to_dict("records"))
    else:
        show_best(best, place, cif=folder)


def best_of(
    run: RunPath,
    *,
    cif: Path | None,
    top: int,
    formula: str | None = None,
    role: str | None = None,
    distinct: bool = True,
) -> pd.DataFrame:
    """The best crystals of a run, with their ``rank``; written to the folder ``cif`` if given, as ``file`` says."""
    from search.storage.cif import write_cifs
    from search.storage.ranking import new_below_hull, rank
    from search.storage.results import load_results

    frame = load_results(run, structures=False)
    best = rank(frame, top=top, formula=formula, role=role, distinct=distinct)
    files = [None] * len(best) if cif is None or best.empty else list(map(str, write_cifs(best, cif)))
    best = best.assign(rank=range(1, len(best) + 1), file=files)
    best.attrs["new"] = len(new_below_hull(frame))
    return best


def show_best(best: pd.DataFrame, run: RunPath, *, cif: Path | None) -> None:
    """Print a table of `best_of`, and where the CIFs are or how to write them."""
    from search.reporting.tables import results_table
    from search.storage.judgements import load_verification

    if best.empty:
        console.print("No relaxed crystal matches.")
        return
    verdicts = {one["name"]: one["grade"] for one in load_verification(run)}
    console.print(results_table(best, verdicts))
    if "new" in best.attrs:
        console.print(
            f"{best.attrs['new']} distinct, polished crystals of the run lie below the hull and are not in the library "
            "of known phases.",
            soft_wrap=True,
        )
    if cif is None:
        console.print(f"CIFs of these crystals: hostguide results {shlex.quote(str(run))}", soft_wrap=True)
        return
    console.print(f"CIFs of these {len(best)} crystals: {cif}", soft_wrap=True)
