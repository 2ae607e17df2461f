"""`hostguide init`: ask a few questions and write the configuration of a search, with comments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.common import console


def init(
    out: Annotated[
        Path | None, typer.Argument(help="YAML file to write (default: <name>.yaml)", dir_okay=False)
    ] = None,
) -> None:
    """Ask a few questions and write a commented configuration of a search."""
    from model.files import written_whole
    from search.config_file import check_config
    from search.questions import MAX_ATOMS, configuration, explained, is_host

    what = typer.prompt("What to search? A chemical system (Li-Si), a formula (Li5Si2), or the file of a host").strip()
    host = is_host(what)
    asked = "Guest to put into it" if host else "Guests to take out and put back, separated by spaces (none: chosen)"
    guests = typer.prompt(asked, default=None if host else "", show_default=False).replace(",", " ").split()
    atoms = None if host else typer.prompt("Maximum number of atoms in a cell", default=MAX_ATOMS, type=int)
    content = configuration(what, guests=guests, max_atoms=atoms)
    content["policy"]["rounds"] = typer.prompt(
        "Rounds of about 32 crystals", default=content["policy"]["rounds"], type=int
    )
    settings = check_config(content, source=what)
    path = out or Path(f"{settings.name}.yaml")
    if path.exists():
        raise ValueError(f"{path} exists: give another file, for example hostguide init {path.stem}-2.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_text(explained(content, str(path)), encoding="utf-8")
    console.print(f"Written to {path}. How long would it take?  hostguide validate {path}", soft_wrap=True)
