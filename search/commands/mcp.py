"""`hostguide mcp`: a server of the Model Context Protocol, through which agents use the program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def mcp(
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which searches, relaxations and inpaintings may write (default: nothing is written)",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Serve agents over standard input and output (Model Context Protocol); needs the extra `mcp`."""
    from search.agents import server

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    server(folder).run()
