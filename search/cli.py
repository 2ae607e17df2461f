"""The command line, assembled from the commands of `search.commands`. Errors that the user can fix exit with code 2."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
import warnings
from importlib.metadata import version
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console

from search import commands
from search.commands.common import BAD_INPUT, INTERRUPTED, begin, console

app = typer.Typer(
    name="hostguide",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(version("hostguide"))
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Find the sites of guest atoms in a host crystal, and the stable crystals of a chemical system."""
    begin()


def add_commands(app: typer.Typer, package: ModuleType, panel: str | None = None) -> None:
    """Add all commands of a package and its sub-packages; each sub-package has its own panel in the help.

    A module defines either a Typer called ``app`` or a function with its own name, see `search.commands`.
    """
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        name = info.name.rpartition(".")[2]
        module = importlib.import_module(info.name)
        if info.ispkg:
            add_commands(app, module, panel=(module.__doc__ or name).splitlines()[0].rstrip("."))
        elif hasattr(module, "app"):
            app.add_typer(module.app, name=name, rich_help_panel=panel)
        elif name != "common":
            app.command(name.replace("_", "-"), rich_help_panel=panel)(getattr(module, name))


add_commands(app, commands)


def main() -> None:
    """Entry point. For errors that the user can fix, only the message is shown, without a traceback."""
    warnings.filterwarnings("ignore")  # warnings of third-party packages; our own messages go through the console
    began = time.monotonic()
    try:
        app()
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        Console(stderr=True, highlight=False).print(
            f"hostguide: {error}", style="bold red", markup=False, soft_wrap=True
        )
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        Console(stderr=True).print(f"Stopped after {time.monotonic() - began:.0f} s.")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
