"""`hostguide report`: the HTML report of a run, as a file or served while the search runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.common import RunArgument, console
from search.storage.paths import beside, run_path


def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="HTML file (default: RUN/report.html)", dir_okay=False)] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve the page on this machine while the search runs")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --watch; 0 picks a free one")] = 8365,
) -> None:
    """Write an HTML report of a run: hull, progress, symmetry, the best crystals in 3D. It needs no network."""
    from search.reporting.report import build_report, serve

    place = run_path(run)
    if watch:
        server = serve(place, port)
        console.print(f"http://127.0.0.1:{server.server_port}/  (press Ctrl-C to stop)")
        server.serve_forever()
    path, page = out or beside(place) / "report.html", build_report(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    console.print(str(path), soft_wrap=True)
