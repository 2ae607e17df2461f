"""Configuration of a screen: which hosts and ions, how they are filled, and when a host is given up."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers
from pydantic import Field, ValidationError, field_validator

from model.analysis.migration import BarrierSettings
from model.analysis.voltage import ion_charge
from model.potentials.catalog import DEFAULT, find_entry
from model.settings import Settings
from search.config import Resources
from search.config_file import read_mapping
from search.electrodes.filling import FillSettings
from search.storage.paths import RunPath


class Hosts(Settings):
    """Where the hosts come from; all of these together."""

    files: tuple[str, ...] = ()  # crystal files, folders of them, Parquet tables, identifiers of known phases
    systems: tuple[str, ...] = ()  # known phases of exactly these elements: Mn-O; * stands for any one element: *-P-O
    max_atoms: int = Field(40, ge=1)  # of a host as given
    max_above_hull: float = Field(0.01, ge=0)  # eV/atom; of hosts from systems, as the library of known phases has it


class GivingUp(Settings):
    """When a host, or a host with one ion, is not looked at further."""

    max_e_d: float = Field(0.2, gt=0)  # eV/atom of the relaxed empty host
    min_voltage: float = 0.0  # V against the guest's element, from the content before; more guests are not tried
    on_collapse: bool = False  # whether hosts are given up whose framework does not survive being empty


class ScreenConfig(Settings):
    """Configuration of a screen."""

    name: str = Field("screen", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    hosts: Hosts = Hosts()
    guests: tuple[str, ...] = Field(min_length=1)  # elements, each tried alone in every host
    extract: bool = False  # hosts hold the guest already; it is taken out, and the content of the file is tried too
    contents: int = Field(4, ge=1)  # numbers of guests tried from empty to full
    max_atoms: int = Field(60, ge=1)  # of a supercell with its guests
    filling: FillSettings = FillSettings(polish=True)
    giving_up: GivingUp = GivingUp()
    barriers: BarrierSettings | None = None  # of the easiest path, by nudged elastic band; null: none
    potential: str = DEFAULT
    judge: str | None = None  # a second potential, which evaluates and relaxes the same crystals
    weights: str | None = None  # of the score model
    seed: int = Field(0, ge=0)
    resources: Resources = Resources()

    @field_validator("guests")
    @classmethod
    def _ions(cls, guests: tuple[str, ...]) -> tuple[str, ...]:
        for guest in guests:
            if atomic_numbers.get(guest, 0) == 0:
                raise ValueError(f"{guest!r} is not an element; use symbols such as Li")
            ion_charge(guest)
        return tuple(dict.fromkeys(guests))

    @field_validator("potential", "judge")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return None if name is None else find_entry(name).name

    @property
    def digest(self) -> str:
        """Hash of everything that affects the rows of one host and ion, but not of which hosts and ions there are."""
        left_out = {"name", "hosts", "guests", "resources"}
        content = self.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_screen(path: Path | RunPath, **given: Any) -> ScreenConfig:
    """Read a YAML file; ``given`` replaces its fields.

    Raises:
        ValueError: with one line per problem.
    """
    content = read_mapping(path, examples="configs/screen.yaml in the repository is an example")
    return check_screen({**content, **given}, source=str(path))


def check_screen(content: dict[str, Any], *, source: str) -> ScreenConfig:
    """Validate a mapping; ``source`` begins the error message."""
    try:
        return ScreenConfig.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, one['loc']))}: {_said(one)}" for one in error.errors()]
        raise ValueError("\n".join([f"{source}:", *lines])) from error


def _said(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown field; docs/electrodes.md lists them"
    said = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return said if isinstance(problem["input"], dict) else f"{said} (given: {problem['input']!r})"
