"""A configuration made from a question on the command line, such as Li-Si, Li5Si2 or a host."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from model.crystals.composition import CellFormula, parse_system
from model.generators.registry import starting_from
from model.generators.roles import Start
from search.storage.crystal_files import is_identifier, read_crystal

MAX_ATOMS = 8  # of a cell, unless the user says otherwise: seconds per crystal on a laptop
FILLINGS = 4  # guests in a host's cell: 1 to this many
JUDGE = "7net-l3i5"  # if it is installed, and its own hull does not take up the time:
JUDGED_ELEMENTS, JUDGED_MINUTES = 3, 5  # up to so many elements, from so many minutes on
NO_JUDGE = "none"
ROUNDS, ROUNDS_BY_TIME = 10, 1000  # without a time limit, and with one, which ends the search long before
SYMBOL = re.compile(r"[A-Z][a-z]?")  # of an element


def is_host(question: str) -> bool:
    """Whether a question is about a host: a crystal file, or the identifier of a known phase."""
    return Path(question).is_file() or is_identifier(question)


def configuration(
    question: str,
    *,
    guests: Sequence[str] = (),
    max_atoms: int | None = None,
    minutes: float | None = None,
    judge: str | None = None,
) -> dict[str, Any]:
    """The configuration of a search, to be checked by `search.config_file.check_config`.

    Args:
        question: a chemical system (Li-Si), compounds (Li2S-P2S5), a formula (Li5Si2), or a host: a crystal file or an
            identifier.
        guests: elements that are taken out of crystals and put back, or put into the host.
        max_atoms: of a cell; by default `MAX_ATOMS`, or as many as the filled host has.
        minutes: time limit of the whole command.
        judge: potential that judges the search, or `NO_JUDGE`; by default `JUDGE` if its package is installed, for
            up to `JUDGED_ELEMENTS` elements and at least `JUDGED_MINUTES`.

    Raises:
        ValueError: the question cannot be understood, or a host comes without exactly one guest.
    """
    content = _of_host(question, guests, max_atoms) if is_host(question) else _of_formulas(question, guests, max_atoms)
    chosen = judge or _default_judge(content["compositions"], math.inf if minutes is None else minutes)
    judging = {} if chosen == NO_JUDGE else {"judge": {"potential": chosen}}
    return {**content, **judging, "policy": {"rounds": ROUNDS if minutes is None else ROUNDS_BY_TIME}}


def _default_judge(compositions: dict[str, Any], minutes: float) -> str:
    elements = set(SYMBOL.findall(str(compositions)))  # names of fields are in lower case
    installed = importlib.util.find_spec("sevenn") is not None
    return JUDGE if installed and len(elements) <= JUDGED_ELEMENTS and minutes >= JUDGED_MINUTES else NO_JUDGE


def _of_formulas(question: str, guests: Sequence[str], max_atoms: int | None) -> dict[str, Any]:
    budget = {"max_atoms": max_atoms or MAX_ATOMS}
    parts = [part.strip() for part in question.split("-")]
    if len(parts) > 1 and not all(SYMBOL.fullmatch(part) for part in parts):
        compositions = {"terminals": parts, **budget}
    elif len(parts) > 1:
        compositions = {"system": "-".join(parse_system(question)), **budget}
    else:
        compositions = {"formulas": [_formula(question)], **budget}
    removed = {"frameworks": {"guests": list(guests)}} if guests else {}
    return {"name": question.lower(), "compositions": compositions, **removed}


def _formula(question: str) -> str:
    try:
        return CellFormula.parse(question).reduced
    except ValueError as error:
        raise ValueError(
            f"{question!r} is neither a file nor a chemical system such as Li-Si nor a formula such as Li5Si2 ({error})"
        ) from error


def _of_host(question: str, guests: Sequence[str], max_atoms: int | None) -> dict[str, Any]:
    if len(guests) != 1:
        raise ValueError(f"{question} is a host: give its guest, for example --guest Li; got {len(guests)} guests")
    host = read_crystal(Path(question)).crystal
    counts = [count for count in range(1, FILLINGS + 1) if max_atoms is None or len(host) + count <= max_atoms]
    if not counts:
        raise ValueError(f"--max-atoms {max_atoms}: the host {question} has {len(host)} atoms; give at least one more")
    own = {symbol: host.symbols.count(symbol) for symbol in dict.fromkeys(host.symbols)}
    cells = [{**own, guests[0]: own.get(guests[0], 0) + count} for count in counts]
    file = question if is_identifier(question) else str(Path(question).resolve())
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]", "-", f"{Path(question).stem}-{guests[0]}").lstrip("._-"),
        "compositions": {"cells": cells},
        "frameworks": {"files": [file], "guests": list(guests)},
        "generators": list(starting_from(Start.HOST)),
    }


# field -> what a reader of the YAML should know about it
COMMENTS = {
    "system": "all compositions of these elements",
    "formulas": "reduced; every number of formula units that fits is searched",
    "terminals": "all mixtures of their formula units",
    "cells": "atoms of each cell: the host with its guests",
    "max_atoms": "in a cell; the time grows steeply with it",
    "frameworks": "what is left of a crystal without its guests",
    "files": "hosts that are there from the start",
    "guests": "elements that are taken out, and put back where they have more room",
    "generators": "how crystals are made",
    "judge": "a second potential, which has the last word on low crystals; docs/judges.md",
    "rounds": "at most; Ctrl-C or --minutes ends the search earlier, and the same command resumes it",
}


class _Dumper(yaml.SafeDumper):
    """Groups of fields on lines of their own, lists in one line."""


_Dumper.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def explained(content: dict[str, Any], name: str) -> str:
    """A configuration as YAML with comments; ``name`` is that of its file."""
    lines = [
        f"# Run this search:             hostguide search {name}",
        f"# How long would it take?      hostguide validate {name}",
        "# docs/configuration.md explains every field, and those that are left out here.",
    ]
    for line in yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=200).splitlines():
        field = re.match(r"\s*(?:- )?(\w+):", line)
        comment = COMMENTS.get(field[1]) if field else None
        lines.append(f"{line}  # {comment}" if comment else line)
    return "\n".join(lines) + "\n"
