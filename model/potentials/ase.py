"""Any ASE calculator as a potential.

A configuration that names a calculator may come from someone else. So only what is meant to make one is called: a class
of ASE calculators, a method of one, or a function of an installed package that builds on ASE.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator
from ase.data import atomic_numbers, covalent_radii

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.calculators import CalculatorSettings, installed_version
from model.potentials.interface import BatchEvaluation, Evaluation, Potential, evaluate_crystals, mark_not_finite_
from model.symmetry.projector import Projector


class ASEPotential:
    """Any ASE calculator with energy, forces and stress as a `Potential`.

    Args:
        calculator: the calculator; it must support three-dimensional periodicity.
        name: recorded with the results (default: name of the class).
        version: of the calculator (default: version of ASE).
    """

    def __init__(self, calculator: Any, *, name: str = "", version: str = "") -> None:
        self.calculator = calculator
        self.name = name or type(calculator).__name__
        self.version = version or ase.__version__
        self.device = torch.device("cpu")

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals one by one; one that cannot be evaluated has a ``problem`` instead of raising."""
        return evaluate_crystals(self, crystals)

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch crystal by crystal."""
        problems = ["" if ok else "not finite" for ok in batch.is_finite().tolist()]
        result = BatchEvaluation.unknown(batch, problems, magmoms=False)
        first_atom = [0, *torch.cumsum(batch.counts, 0).tolist()]
        for i, problem in enumerate(problems):
            if problem:
                continue
            try:
                energy, forces, stress = self._one(batch.part(i, i + 1, first_atom).to_crystals()[0])
            except Exception as error:  # a calculator may raise anything; the others must still be computed
                problems[i] = f"{type(error).__name__}: {error}"
                continue
            result.energy[i], result.stress[i] = energy, torch.from_numpy(stress)
            result.forces[first_atom[i] : first_atom[i + 1]] = torch.from_numpy(forces)
        mark_not_finite_(result, batch)
        return result

    def _one(self, crystal: Crystal) -> tuple[float, np.ndarray, np.ndarray]:
        atoms = crystal.to_ase()
        atoms.calc = self.calculator
        energy = float(atoms.get_potential_energy()) / len(atoms)
        return energy, np.array(atoms.get_forces(), float), np.array(atoms.get_stress(voigt=False), float)


def load_calculator(settings: CalculatorSettings) -> ASEPotential:
    """Import and construct the calculator.

    Raises:
        ValueError: the import path leads nowhere or to something that makes no calculator, or it does not accept the
            arguments.
    """
    make = _imported(settings)
    known = _takes(make)
    if inspect.isclass(make) and not known.issuperset(settings.arguments):  # ASE's classes ignore what they do not know
        raise ValueError(_not_accepted(settings, ", ".join(sorted(set(settings.arguments) - known)), known))
    try:
        calculator = make(**settings.arguments)
    except Exception as error:  # a package may raise anything, for example if it cannot fetch its weights
        given = json.dumps(settings.arguments, default=str)
        raise ValueError(_not_accepted(settings, f"{given} ({type(error).__name__}: {error})", known)) from error
    if not isinstance(calculator, BaseCalculator):
        raise ValueError(_no_calculator(settings, f"it gives a {type(calculator).__name__}"))
    return ASEPotential(calculator, name=settings.label, version=_version(settings))


def _version(settings: CalculatorSettings) -> str:
    """Version of the package, with a hash of the arguments and of the files that they name."""
    files = [Path(value) for value in settings.arguments.values() if isinstance(value, str)]
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()]
    deciding = json.dumps([settings.calculator, settings.arguments, content], sort_keys=True, default=str)
    digest = hashlib.blake2b(deciding.encode(), digest_size=4).hexdigest()
    return f"{installed_version(settings.package)} ({digest})"


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
    is_class = any(inspect.isclass(one) and issubclass(one, BaseCalculator) for one in (found, owner))
    if not is_class and not (inspect.isfunction(found) and _builds_on_ase(settings.package)):
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


def _not_accepted(settings: CalculatorSettings, what: str, known: Collection[str]) -> str:
    takes = ", ".join(sorted(known)) or "none"
    return f"models.potential: {settings.calculator} does not accept the arguments {what}; it takes {takes}"


def _no_calculator(settings: CalculatorSettings, why: str) -> str:
    return (
        f"models.potential: {settings.calculator} makes no ASE calculator: {why}; give the import path of a class of "
        "ASE calculators, or of a function of the same package that returns one"
    )


def _takes(make: Callable[..., Any]) -> set[str]:
    """Names of the arguments; of a class also those of the classes that it is derived from, and ASE's parameters."""
    classes = [one for one in inspect.getmro(make) if one is not object] if inspect.isclass(make) else []
    names = {name for one in classes for name in getattr(one, "default_parameters", ())}
    for one in [make, *(cls.__dict__["__init__"] for cls in classes if "__init__" in cls.__dict__)]:
        plain = [
            p for p in inspect.signature(one).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        names |= {parameter.name for parameter in plain}
    return names - {"self"}


def require_complete(potential: Potential, elements: Collection[str]) -> None:
    """Check that a potential gives energy, forces and stress for these elements, each as a close-packed crystal.

    Raises:
        ValueError: it does not; with what it said.
    """
    for symbol in sorted(elements):
        edge = 2**0.5 * covalent_radii[atomic_numbers[symbol]]
        crystal = Crystal(edge * (1 - np.eye(3)), np.zeros((1, 3)), np.array([atomic_numbers[symbol]]))
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
