"""An ASE calculator that a configuration names: its import path, its arguments, and what its energies are.

`model.potentials.ase` makes it. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from pydantic import Field, field_validator

from model.potentials.energies import Energies
from model.settings import Settings

# Module -> package on PyPI, where the names differ.
PACKAGES = {
    "mace": "mace-torch",
    "orb_models": "orb-models",
    "fairchem": "fairchem-core",
    "pet_mad": "pet-mad",
    "metatomic": "metatomic-torch",
}


class CalculatorSettings(Settings):
    """An ASE calculator as a potential."""

    calculator: str  # import path of a class or function
    arguments: dict[str, Any] = Field({})  # by keyword, for example model: medium-mpa-0
    energies: Energies  # what it was trained on: GGA, MP2020, r2SCAN or own
    name: str | None = Field(None, min_length=1)  # in results; default: made of calculator and arguments

    @field_validator("calculator")
    @classmethod
    def _is_path(cls, value: str) -> str:
        if not all(part.isidentifier() for part in value.split(".")) or "." not in value:
            raise ValueError("must be an import path such as mace.calculators.mace_mp")
        return value

    @property
    def label(self) -> str:
        """The name in results and reference tables, for example ``mace_mp(model=medium-mpa-0)``."""
        if self.name is not None:
            return self.name
        *before, last = self.calculator.split(".")
        called = f"{before[-1]}.{last}" if before[-1][0].isupper() else last  # a method goes with its class
        return f"{called}({', '.join(f'{key}={_text(value)}' for key, value in sorted(self.arguments.items()))})"

    @property
    def package(self) -> str:
        """The distribution that brings the calculator; what it is called on PyPI if it is not installed."""
        module = self.calculator.partition(".")[0]
        return _distributions().get(module, [PACKAGES.get(module, module)])[0]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def installed_version(package: str) -> str:
    """Version of a distribution; "unknown" for a module that belongs to none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
