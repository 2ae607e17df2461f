"""Known structure types, and crystals made from them by exchanging their elements.

The packaged table holds structure types of the Materials Project (version 2025.02.12, CC BY 4.0, A. Jain et al.,
APL Materials 1, 011002 (2013)); `benchmarks/prototypes.py` makes it. Two compounds are of one type when they have as
many atoms of each kind and the distances to the nearest neighbours of each kind agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Literal

import numpy as np
import pandas as pd
from ase.data import atomic_numbers
from pymatgen.core import Element

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import cell_vectors
from model.crystals.matching import neighbour_distances
from model.files import DATA
from model.settings import Settings

PACKAGED = DATA / "prototypes.parquet"
NEIGHBOURS = 16  # whose distances tell types apart
SAME = 0.05  # of (volume per atom)^(1/3), difference of the mean distances to the k-th neighbours within one type
SCALE = 1200  # stored coordinates are whole numbers of this part of a cell vector; halves, thirds and eighths are exact
POPULAR = 0.1  # electronegativity units that a factor e in the number of known compounds is worth
RATTLE = 0.1  # Å


class ExchangeSettings(Settings):
    """Ion exchange: the prototypes of a composition are taken in turn, those of the most similar elements first."""

    kind: Literal["exchange"] = "exchange"


@dataclass(frozen=True, eq=False)
class Prototype:
    """A structure type.

    Attributes:
        name: identifier of the compound that stands for it.
        crystal: that compound.
        negativity: atomic number in it -> mean electronegativity on these sites over all compounds of the type.
        compounds: known compounds of the type.
    """

    name: str
    crystal: Crystal
    negativity: Mapping[int, float]
    compounds: int


@dataclass(frozen=True, eq=False)
class Exchange:
    """A prototype whose elements are exchanged.

    Attributes:
        prototype: where the atoms are.
        elements: atomic number in the prototype -> atomic number in its place.
    """

    prototype: Prototype
    elements: Mapping[int, int]

    @property
    def strangeness(self) -> float:
        """How far the elements are from those usually found in their places; popular types seem less strange."""
        numbers = self.prototype.crystal.numbers
        differences = [
            abs(self.prototype.negativity[z] - electronegativity(self.elements[z])) for z in numbers.tolist()
        ]
        return float(np.mean(differences) - POPULAR * np.log(self.prototype.compounds))

    def crystal(self, volume: float, rng: np.random.Generator | None = None) -> Crystal:
        """The crystal at a volume (Å³), its atoms by atomic number; with ``rng`` every atom is moved by about 0.1 Å."""
        known = self.prototype.crystal
        numbers = np.array([self.elements[z] for z in known.numbers.tolist()])
        order = np.argsort(numbers, kind="stable")
        lattice = known.lattice * np.cbrt(volume / known.volume)
        noise = np.zeros((len(known), 3)) if rng is None else RATTLE / np.sqrt(3) * rng.normal(size=(len(known), 3))
        return Crystal(lattice, (known.fractional + noise @ np.linalg.inv(lattice))[order], numbers[order]).wrapped()


@cache
def exchanges(cell: CellFormula) -> tuple[Exchange, ...]:
    """All ways to make a cell of these atoms from a known structure type, the least strange first."""
    counts = {atomic_numbers[element]: count for element, count in cell.counts}
    known = _library().get(tuple(sorted(counts.values())), [])
    found = [exchange for prototype in known for exchange in _assignments(prototype, counts)]
    return tuple(sorted(found, key=lambda one: (one.strangeness, one.prototype.name)))


def _assignments(prototype: Prototype, counts: Mapping[int, int]) -> list[Exchange]:
    """The ways to put elements in the places of a prototype; those that only swap places of one kind count once."""
    places = tuple(prototype.negativity)
    size = {z: int((prototype.crystal.numbers == z).sum()) for z in places}
    fitting = [
        one for one in permutations(counts) if all(size[z] == counts[new] for z, new in zip(places, one, strict=True))
    ]
    if len(fitting) == 1:
        return [Exchange(prototype, dict(zip(places, fitting[0], strict=True)))]
    rows = dict(zip(places, _mean_distances(prototype.crystal).values(), strict=True))
    kept: list[tuple[np.ndarray, Exchange]] = []
    for assigned in fitting:
        elements = dict(zip(places, assigned, strict=True))
        seen = np.stack([rows[z] for z in sorted(places, key=lambda z: elements[z])])
        if not any(np.abs(seen - other).max() < SAME for other, _ in kept):
            kept.append((seen, Exchange(prototype, elements)))
    return [exchange for _, exchange in kept]


def _mean_distances(crystal: Crystal) -> dict[int, np.ndarray]:
    """Atomic number -> (16,) mean distances to the k-th neighbours at one unit of volume an atom."""
    distances = neighbour_distances(crystal, NEIGHBOURS) / np.cbrt(crystal.volume / len(crystal))
    return {z: distances[crystal.numbers == z].mean(0) for z in np.unique(crystal.numbers).tolist()}


def electronegativity(z: int) -> float:
    """Pauling's; elements without one count as 2."""
    return float(Element.from_Z(z).data.get("X") or 2.0)


@cache
def _library() -> dict[tuple[int, ...], list[Prototype]]:
    """The packaged prototypes by their sorted numbers of atoms."""
    library: dict[tuple[int, ...], list[Prototype]] = {}
    for prototype in read(pd.read_parquet(PACKAGED)):
        counts = np.unique(prototype.crystal.numbers, return_counts=True)[1]
        library.setdefault(tuple(sorted(counts.tolist())), []).append(prototype)
    return library


def read(frame: pd.DataFrame) -> Iterator[Prototype]:
    """Prototypes of a table that `collect` made."""
    for row in frame.itertuples():
        cell = np.array(row.cell)
        crystal = Crystal(cell_vectors(cell[:3], cell[3:]), np.array(row.fractional) / SCALE, np.array(row.numbers))
        places = np.unique(crystal.numbers).tolist()
        negativity = dict(zip(places, (x / 100 for x in row.negativity), strict=True))
        yield Prototype(str(row.name), crystal, negativity, int(row.compounds))


def collect(crystals: Iterable[tuple[str, Crystal]]) -> pd.DataFrame:
    """A table of the structure types among crystals; of each type the first crystal is kept.

    Args:
        crystals: identifier and crystal, the most stable first.
    """
    types: dict[tuple[int, ...], list[_Type]] = {}
    for name, crystal in crystals:
        found = _Type.of(name, crystal)
        known = types.setdefault(found.label, [])
        same = next((one for one in known if np.abs(one.distances - found.distances).max() < SAME), None)
        if same is None:
            known.append(found)
        else:
            same.members.extend(found.members)
    return pd.DataFrame([one.row() for some in types.values() for one in some])


@dataclass(eq=False)
class _Type:
    name: str
    crystal: Crystal
    label: tuple[int, ...]  # atoms of each element
    distances: np.ndarray  # (species, 16) mean distances to the k-th neighbours at one unit of volume an atom
    places: list[int]  # atomic numbers in the order of label and distances
    members: list[list[float]]  # electronegativities of each compound, in the same order

    @classmethod
    def of(cls, name: str, crystal: Crystal) -> _Type:
        means = _mean_distances(crystal)
        counts = {z: int((crystal.numbers == z).sum()) for z in means}
        places = sorted(means, key=lambda z: (counts[z], *means[z].round(2), electronegativity(z)))
        label = tuple(counts[z] for z in places)
        rows = np.stack([means[z] for z in places])
        return cls(name, crystal.wrapped(), label, rows, places, [[electronegativity(z) for z in places]])

    def row(self) -> dict[str, object]:
        mean = dict(zip(self.places, np.mean(self.members, axis=0), strict=True))
        lengths = np.linalg.norm(self.crystal.lattice, axis=1)
        unit = self.crystal.lattice / lengths[:, None]
        angles = np.degrees(np.arccos([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]))
        return {
            "name": self.name,
            "cell": np.round([*lengths, *angles], 3).astype(np.float32),
            "numbers": self.crystal.numbers.astype(np.int8),
            "fractional": np.rint(self.crystal.fractional.ravel() * SCALE).astype(np.int16) % SCALE,
            "negativity": np.rint([100 * mean[z] for z in sorted(mean)]).astype(np.int16),
            "compounds": len(self.members),
        }
