"""Reading the configuration of a search from a YAML file, with error messages in terms of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from model.generators.registry import GENERATORS
from model.potentials.calculators import CalculatorSettings
from search.config import CALCULATOR, GROUP_OF_FIELDS, NAME, SAMPLERS, ProblemsInside, SearchConfig
from search.storage.crystal_files import is_identifier
from search.storage.paths import RunPath, run_path

WAYS = {**SAMPLERS, CALCULATOR: CalculatorSettings, NAME: str}  # parts of pydantic's locations that are no field


def load_config(path: str | RunPath) -> SearchConfig:
    """Read and check a YAML file; paths of hosts are relative to the file's folder, identifiers of known phases stay.

    Raises:
        ValueError: with one line per problem: the field, the value and what is allowed.
    """
    path = run_path(path)
    config = check_config(read_mapping(path, examples="configs/ in the repository contains examples"), source=str(path))
    folder = path.parent if isinstance(path, Path) else Path()
    files = tuple(
        name if is_identifier(name) and not (folder / name).exists() else str((folder / name).resolve())
        for name in config.frameworks.files
    )
    return config.model_copy(update={"frameworks": config.frameworks.model_copy(update={"files": files})})


def read_mapping(path: Path | RunPath, *, examples: str) -> dict[str, Any]:
    """The fields of a YAML file; raises ValueError, with where there are ``examples``, if it does not hold any."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; {examples}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must contain a mapping of fields, found {type(content).__name__}")
    return content


def check_config(content: dict[str, Any], *, source: str) -> SearchConfig:
    """Validate a mapping; ``source`` begins the error message."""
    try:
        return SearchConfig.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem)}" for problem in _problems(error))
        raise ValueError(f"{source}:\n{problems}") from error


def _problems(error: ValidationError, where: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
    """All problems with their location in the file, including those inside `sampling`."""
    for problem in error.errors():
        place, inner = (*where, *problem["loc"]), problem.get("ctx", {}).get("error")
        if isinstance(inner, ProblemsInside):
            for name, one in inner.problems:
                yield from _problems(one, (*place, name))
        else:
            yield {**problem, "loc": place}


# pydantic's error types -> messages in terms of the YAML file.
_IN_PLAIN_WORDS = {
    "missing": "must be given",
    "string_type": "must be text; put the value in quotes",
    "string_pattern_mismatch": "must consist of letters, digits and . _ - only, and begin with a letter or a digit",
    "tuple_type": "must be a list, for example [a, b]",
    "dict_type": GROUP_OF_FIELDS,
    "model_type": GROUP_OF_FIELDS,
    "model_attributes_type": GROUP_OF_FIELDS,
    "union_tag_not_found": f"kind must be given: {', '.join(SAMPLERS)}",
    "union_tag_invalid": f"kind must be one of {', '.join(SAMPLERS)}",
}


def _describe(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part not in WAYS)
    given = problem["ctx"]["tag"] if problem["type"] == "union_tag_invalid" else problem["input"]
    shown = "" if isinstance(given, dict) else f" (given: {given!r})"
    return f"{where}: {_explain(problem)}{shown}".removeprefix(": ")  # checks of several fields name them themselves


def _explain(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        known = ", ".join(_fields_beside(problem["loc"]))
        return f"unknown field; valid fields are {known}. docs/configuration.md explains them"
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
        return "the list is too short"
    said = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _IN_PLAIN_WORDS.get(problem["type"], said)


def _fields_beside(location: Sequence[str]) -> list[str]:
    """Names of all fields of the group that ``location`` points into."""
    group: Any = SearchConfig
    for before, part in zip(("", *location), location[:-1], strict=False):
        inside = GENERATORS[part].settings if before == "sampling" else None
        group = WAYS.get(part) or inside or (group.model_fields[part].annotation if part != "sampling" else group)
    return list(group.model_fields)
