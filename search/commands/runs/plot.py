"""`hostguide plot`: publication-quality figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from search.commands.common import RunArgument, console
from search.storage.paths import beside, run_path


def plot(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures (default: RUN/plots)", file_okay=False)
    ] = None,
    kind: Annotated[Literal["png", "svg", "pdf"], typer.Option("--format", help="File format")] = "png",
) -> None:
    """Plot hull, progress, symmetry, changes on relaxation and the best crystal, each one journal column wide."""
    from search.reporting.plots import plot_run

    place = run_path(run)
    for path in plot_run(place, out or beside(place) / "plots", kind):
        console.print(str(path), soft_wrap=True)
