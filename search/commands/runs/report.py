"""`hostguide report`: the HTML report of a search or a screen, as a file or served while it runs."""

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
    """Write an HTML report of a search or a screen, with its best crystals in 3D. It needs no network."""
    from search.electrodes.store import is_screen
    from search.reporting.report import build_report, serve
    from search.reporting.screen_report import build_screen_report

    place = run_path(run)
    build = build_screen_report if is_screen(place) else build_report
    if watch:
        server = serve(place, port, build)
        console.print(f"http://127.0.0.1:{server.server_port}/  (press Ctrl-C to stop)")
        server.serve_forever()
    path, page = out or beside(place) / "report.html", build(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    console.print(str(path), soft_wrap=True)
