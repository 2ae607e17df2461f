"""Parts of pages that are made from the code: the reference of the commands, and what they print with `--json`."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from search.cli import app
from search.reporting.records import RECORDS, schema


def commands() -> str:
    """Every command: its use, arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in _all(typer.main.get_command(app), ()))


def _all(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if not getattr(child, "commands", {}):
            yield (*path, name), child
        yield from _all(child, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> str:
    name = " ".join(path)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    use = " ".join(f"{one.name.upper()}{'...' if one.nargs == -1 else ''}" for one in arguments)
    lines = [f"## hostguide {name}", "", _cell(command.help or ""), "", f"    hostguide {name} {use}".rstrip(), ""]
    rows = [(f"`{one.name.upper()}`", getattr(one, "help", "") or "", "") for one in arguments]
    rows += [(_names(one), one.help or "", _default(one)) for one in options]
    if rows:
        lines += ["| | meaning | default |", "|---|---|---|", *(f"| {' | '.join(map(_cell, row))} |" for row in rows)]
    return "\n".join(lines)


def _names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _default(option: Any) -> str:
    value = option.default
    return "" if value is None or callable(value) or isinstance(value, bool) or value in ("", ()) else f"`{value}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def records() -> str:
    """The fields of what every command prints with `--json`."""
    return "\n\n".join(_record(name) for name in RECORDS)


def _record(command: str) -> str:
    found = schema(command)
    parts = found.get("$defs", {})
    is_list = found.get("type") == "array"
    top = parts[found["items"]["$ref"].rpartition("/")[2]] if is_list else found
    lines = [f"## {command}", "", f"{'A list. ' if is_list else ''}{top['description']}", "", *_table(top)]
    for name in _inside(top, parts):
        lines += ["", f"`{name}`: {parts[name]['description']}", "", *_table(parts[name])]
    return "\n".join(lines)


def _table(part: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{name}` | {_kind(one)} | {_cell(one.get('description', ''))} |" for name, one in part["properties"].items()
    ]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"])
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if field["type"] == "array":
        return f"list of {_kind(field['items'])}"
    if field["type"] == "object":
        return f"object of {_kind(field['additionalProperties'])}"
    return str(field["type"])


def _inside(part: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """Records in a record, each before those in it."""
    names = list(dict.fromkeys(re.findall(r"\$defs/(\w+)", str(part["properties"]))))
    return list(dict.fromkeys([*names, *(deep for name in names for deep in _inside(parts[name], parts))]))
