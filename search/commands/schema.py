"""`hostguide schema`: the JSON Schema of what a command prints with `--json`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from search.commands.common import console


def schema(
    command: Annotated[
        list[str] | None, typer.Argument(help="Command, for example results; without one, all that have --json")
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with `--json`."""
    from search.reporting.records import RECORDS
    from search.reporting.records import schema as schema_of

    if not command:
        console.print("\n".join(RECORDS))
        return
    print(json.dumps(schema_of(" ".join(command)), indent=2, ensure_ascii=False))
