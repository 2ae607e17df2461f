"""The catalogue of potentials. No other part of the program refers to a particular potential.

The name here is the only spelling of a potential: in configurations, in the columns of results, on the command line,
and in reference tables that it computed. Heavy libraries are imported only when a potential is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from model.files import DATA
from model.potentials.energies import RAW, Energies

if TYPE_CHECKING:
    from model.potentials.calculators import CalculatorSettings
    from model.potentials.interface import Potential

DEFAULT = "chgnet-0.3.0"
GPU_MEMORY_MB = 4000.0  # of one piece of a batch on a GPU; on CPUs, pieces that fit the cache are faster
NOT_IN_MPTRJ = ("Po", "At", "Rn", "Fr", "Ra")  # of the elements up to Pu; CHGNet and SevenNet were trained on MPtrj
PotentialChoice: TypeAlias = "str | CalculatorSettings"  # a name of the catalogue, or a calculator by import path


@dataclass(frozen=True, kw_only=True)
class PotentialEntry:
    """Properties of a potential that are available without loading it.

    Attributes:
        name: its only spelling.
        construct: makes the potential from its name and a device; imports what it needs. Its energies are those that
            it was trained on: `load_potential` adds the corrections where they are missing.
        energies: what it was trained on.
        package: distribution whose version is stored with a run.
        error: eV/atom, mean absolute error relative to ``level``, stated by its authors for their test set; None if
            they state none.
        reference: packaged table of competing phases; None if there is none.
        last_element: atomic number of the last element that it knows.
        untrained: elements before that one without a place in its training data.
    """

    name: str
    construct: Callable[[str, str], Potential]
    energies: Energies
    package: str
    error: float | None = None
    reference: Path | None = None
    last_element: int = 118
    untrained: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """Level of theory of the energies that `load_potential` gives; the potential's name if it has its own."""
        return self.energies.level or self.name


def _memory(device: str) -> dict[str, Any]:
    return {} if device == "cpu" else {"memory_mb": GPU_MEMORY_MB}


def _chgnet(name: str, device: str) -> Potential:
    from model.potentials.chgnet.potential import CHGNetPotential

    return CHGNetPotential(name, device=device, **_memory(device))


def _calculator(settings: CalculatorSettings) -> Potential:
    from model.potentials.ase import load_calculator

    return load_calculator(settings)


def _sevennet(name: str, device: str) -> Potential:
    from model.potentials.sevennet.potential import SevenNetPotential

    return SevenNetPotential(name, device=device, **_memory(device))


def _sevennet_entry(name: str, *, energies: Energies) -> PotentialEntry:
    """Without an error: its authors state that of the training set alone."""
    return PotentialEntry(
        name=name,
        construct=_sevennet,
        energies=energies,
        package="sevenn",
        last_element=94,
        untrained=NOT_IN_MPTRJ,
    )


_ENTRIES = (
    PotentialEntry(
        name="chgnet-0.3.0",
        construct=_chgnet,
        energies=Energies.MP2020,
        package="chgnet",
        error=0.029,
        reference=DATA / "reference-chgnet-0.3.0.parquet",
        last_element=94,
        untrained=NOT_IN_MPTRJ,
    ),
    PotentialEntry(
        name="chgnet-r2scan",
        construct=_chgnet,
        energies=Energies.R2SCAN,
        package="chgnet",
        error=0.017,
        reference=DATA / "reference-chgnet-r2scan.parquet",
        last_element=94,
        untrained=NOT_IN_MPTRJ,
    ),
    _sevennet_entry("7net-0", energies=Energies.GGA),
    _sevennet_entry("7net-l3i5", energies=Energies.GGA),
    _sevennet_entry("7net-mf-0-pbe", energies=Energies.GGA),
    _sevennet_entry("7net-mf-0-r2scan", energies=Energies.R2SCAN),
)
CATALOG: dict[str, PotentialEntry] = {entry.name: entry for entry in _ENTRIES}


def find_entry(potential: PotentialChoice) -> PotentialEntry:
    """The entry of a potential, made for the purpose if it is a calculator.

    Raises:
        ValueError: there is none of this name; the message lists those that there are.
    """
    if not isinstance(potential, str):
        if potential.label in CATALOG:
            raise ValueError(f"name: {potential.label} is the name of another potential; choose one of your own")
        return PotentialEntry(
            name=potential.label,
            construct=lambda name, device: _calculator(potential),
            energies=potential.energies,
            package=potential.package,
        )
    if potential not in CATALOG:
        raise ValueError(f"unknown potential {potential!r}; choose from {', '.join(CATALOG)}")
    return CATALOG[potential]


def require_known(name: str, symbols: Iterable[str]) -> None:
    """Check that a potential knows these elements; raises ValueError naming those that it does not."""
    from ase.data import atomic_numbers, chemical_symbols

    entry = find_entry(name)
    unknown = sorted(
        symbol for symbol in set(symbols) if atomic_numbers[symbol] > entry.last_element or symbol in entry.untrained
    )
    if unknown:
        without = f", without {', '.join(entry.untrained)}" if entry.untrained else ""
        raise ValueError(
            f"{name} does not know {', '.join(unknown)}: it was trained on elements up to "
            f"{chemical_symbols[entry.last_element]}{without}"
        )


def load_potential(potential: PotentialChoice, *, device: str = "cpu") -> Potential:
    """Load a potential. Its energies are on the scale of its level: missing corrections are added, once.

    Args:
        potential: a name of the catalogue, for example ``chgnet-0.3.0``, or a calculator.
        device: "cpu" or "cuda"; a calculator takes its own from its arguments.

    Raises:
        ValueError: there is no such potential, or it cannot be made.
    """
    entry = find_entry(potential)
    raw = entry.construct(entry.name, device)
    if entry.energies != Energies.GGA:
        return raw
    from model.potentials.corrections import CorrectedPotential

    return CorrectedPotential(raw)


def comparable_with(potential: PotentialChoice) -> tuple[str, ...]:
    """What computed the competing phases that energies may be compared with.

    Args:
        potential: a potential, or a level of theory for energies of DFT.

    Returns:
        for a potential itself, so that its errors cancel, and its level; for a level its potentials and the level.
    """
    if isinstance(potential, str) and potential not in CATALOG:
        return (*(entry.name for entry in CATALOG.values() if entry.level == potential), potential)
    entry = find_entry(potential)
    return tuple(dict.fromkeys((entry.name, entry.level)))


def why_not_comparable(potential: PotentialChoice, reference: str) -> str:
    """Why energies must not be compared with those of a reference, and the remedy; empty if they may.

    Args:
        potential: that computed the energies.
        reference: a potential's name or a level of theory.
    """
    allowed = comparable_with(potential)
    if reference in allowed:
        return ""
    name = potential if isinstance(potential, str) else potential.label
    remedy = f"use a reference computed with {' or '.join(allowed)}"
    if reference in RAW:
        remedy += "; raw GGA/GGA+U energies need pymatgen's MaterialsProject2020Compatibility first"
    return f"energies of {reference!r} cannot be compared with {name}; {remedy}"
