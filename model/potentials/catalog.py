"""The catalogue of potentials. No other part of the program refers to a particular potential.

The name here is the only spelling of a potential: in configurations, in the columns of results, on the command line,
and in reference tables that it computed. Heavy libraries are imported only when a potential is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.files import DATA

if TYPE_CHECKING:
    from model.potentials.interface import Potential

DEFAULT = "chgnet-0.3.0"
MP2020_PBE = "MP2020-corrected PBE"  # GGA and GGA+U of the Materials Project, with the corrections of MP2020
R2SCAN = "r2SCAN"
NOT_IN_MPTRJ = ("Po", "At", "Rn", "Fr", "Ra")  # of the elements up to Pu; CHGNet was trained on MPtrj


@dataclass(frozen=True, kw_only=True)
class PotentialEntry:
    """Properties of a potential that are available without loading it.

    Attributes:
        name: its only spelling.
        construct: makes the potential from its name and a device; imports what it needs.
        level: level of theory that it reproduces, including corrections. Energies of the same level can be compared.
            For a potential that reproduces none, its own name: it can only be compared with itself.
        corrections: included in the energies that it was trained on, so they must not be added again.
        error: eV/atom, mean absolute error relative to ``level``, stated by its authors for their test set.
        package: distribution whose version is stored with a run.
        reference: packaged table of competing phases; None if there is none.
        last_element: atomic number of the last element that it knows.
        untrained: elements before that one without a place in its training data.
    """

    name: str
    construct: Callable[[str, str], Potential]
    level: str
    corrections: str
    error: float
    package: str
    reference: Path | None = None
    last_element: int = 118
    untrained: tuple[str, ...] = ()


def _chgnet(name: str, device: str) -> Potential:
    from model.potentials.chgnet.potential import CHGNetPotential

    return CHGNetPotential(name, device=device)


_ENTRIES = (
    PotentialEntry(
        name="chgnet-0.3.0",
        construct=_chgnet,
        level=MP2020_PBE,
        corrections="MP2020",
        error=0.029,
        package="chgnet",
        reference=DATA / "reference-chgnet-0.3.0.parquet",
        last_element=94,
        untrained=NOT_IN_MPTRJ,
    ),
    PotentialEntry(
        name="chgnet-r2scan",
        construct=_chgnet,
        level=R2SCAN,
        corrections="none",
        error=0.017,
        package="chgnet",
        reference=DATA / "reference-chgnet-r2scan.parquet",
        last_element=94,
        untrained=NOT_IN_MPTRJ,
    ),
)
CATALOG: dict[str, PotentialEntry] = {entry.name: entry for entry in _ENTRIES}


def find_entry(name: str) -> PotentialEntry:
    """The entry of a potential; raises ValueError with the available names if there is none."""
    if name not in CATALOG:
        raise ValueError(f"unknown potential {name!r}; choose from {', '.join(CATALOG)}")
    return CATALOG[name]


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


def load_potential(name: str, *, device: str = "cpu") -> Potential:
    """Load a potential of the catalogue.

    Args:
        name: for example ``chgnet-0.3.0``.
        device: "cpu" or "cuda".

    Raises:
        ValueError: there is no such potential.
    """
    return find_entry(name).construct(name, device)


def comparable_with(name: str) -> tuple[str, ...]:
    """Potentials whose energies can be compared with those of a potential or of a level of theory.

    Returns:
        the potentials of the same level, in the catalogue's order, and the level itself.
    """
    level = CATALOG[name].level if name in CATALOG else name
    return (*(entry.name for entry in CATALOG.values() if entry.level == level and entry.name != level), level)
