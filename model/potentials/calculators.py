"""An ASE calculator that a configuration names: ``{calculator: mace.calculators.mace_mp, arguments: …, energies: GGA}``.

A configuration may come from someone else. So only what is meant to make a calculator is called: a class of ASE
calculators, a method of one, or a function of an installed package that builds on ASE.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator
from ase.data import atomic_numbers, covalent_radii
from pydantic import Field, field_validator

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.energies import Energies
from model.potentials.interface import Potential
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


def load_calculator(settings: CalculatorSettings) -> ASEPotential:
    """Import and construct the calculator.

    Raises:
        ValueError: the import path leads nowhere or to something that makes no calculator, or it does not accept the
            arguments.
    """
    make = _imported(settings)
    try:
        calculator = make(**settings.arguments)
    except Exception as error:  # a package may raise anything, for example if it cannot fetch its weights
        raise ValueError(
            f"models.potential: {settings.calculator} does not accept the arguments "
            f"{json.dumps(settings.arguments, default=str)} ({type(error).__name__}: {error}); it takes {_takes(make)}"
        ) from error
    if not isinstance(calculator, BaseCalculator):
        raise ValueError(_no_calculator(settings, f"it gives a {type(calculator).__name__}"))
    return ASEPotential(calculator, name=settings.label, version=installed_version(settings.package))


def _imported(settings: CalculatorSettings) -> Callable[..., Any]:
    """What the import path names: an object of a module, or a method of a class in it."""
    found, owner = _module_of(settings), None
    for name in settings.calculator.removeprefix(found.__name__).lstrip(".").split("."):
        if not hasattr(found, name):
            raise ValueError(
                f"models.potential: {settings.calculator} does not exist: {found.__name__} of {settings.package} "
                f"{installed_version(settings.package)} has no {name!r}; see the documentation of that package"
            )
        owner, found = found, getattr(found, name)
    if not any(inspect.isclass(one) and issubclass(one, BaseCalculator) for one in (found, owner)):
        if not (inspect.isfunction(found) and _builds_on_ase(settings.package)):
            raise ValueError(_no_calculator(settings, "it is neither such a class nor a function that makes one"))
    return found


def _module_of(settings: CalculatorSettings) -> Any:
    """The module at the beginning of the import path, as deep as there are modules."""
    parts, found = settings.calculator.split("."), None
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        try:
            found = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # it is there, and lacks something itself
                raise ValueError(f"models.potential: {name} cannot be imported: {error}") from error
            if found is None:
                raise ValueError(
                    f"models.potential: there is no module {name!r} for the calculator {settings.calculator}; install "
                    f"the package that brings it: pip install {settings.package}"
                ) from error
            break
        except Exception as error:  # a package that does not fit the others may raise anything
            raise ValueError(f"models.potential: {name} cannot be imported: {error}") from error
    return found


def _builds_on_ase(package: str) -> bool:
    try:
        needs = requires(package) or []
    except PackageNotFoundError:
        return False
    return any(re.match(r"ase\b", need) and "extra ==" not in need for need in needs)


def _no_calculator(settings: CalculatorSettings, why: str) -> str:
    return (
        f"models.potential: {settings.calculator} makes no ASE calculator: {why}; give the import path of a class of "
        "ASE calculators, or of a function of the same package that returns one"
    )


def _takes(make: Callable[..., Any]) -> str:
    try:
        names = [name for name in inspect.signature(make).parameters if name != "self"]
    except (TypeError, ValueError):  # of compiled code
        return "what its documentation says"
    return ", ".join(names) or "none"


def installed_version(package: str) -> str:
    """Version of a distribution; "unknown" for a module that belongs to none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def require_complete(potential: Potential, elements: Collection[str]) -> None:
    """Check that a potential gives energy, forces and stress for these elements, each as a close-packed crystal.

    Raises:
        ValueError: it does not; with what it said.
    """
    for symbol in sorted(elements):
        edge = 2**0.5 * covalent_radii[atomic_numbers[symbol]]
        crystal = Crystal(edge * (1 - np.eye(3)), [[0, 0, 0]], [atomic_numbers[symbol]])
        (result,) = potential.evaluate([crystal])
        if "stress" in result.problem:
            raise ValueError(
                f"models.potential: {potential.name} gives no stress, without which no cell can be relaxed "
                f"({result.problem}); choose a calculator that has it"
            )
        if result.problem:
            raise ValueError(
                f"models.potential: {potential.name} cannot compute {symbol} ({result.problem}); choose another one, "
                "or leave the element out"
            )
