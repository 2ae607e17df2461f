"""Known structure types, and crystals made from them by substituting their elements.

The packaged table holds structure types of the Materials Project (version 2025.02.12, CC BY 4.0, A. Jain et al.,
APL Materials 1, 011002 (2013)); `benchmarks/prototypes.py` makes it. Two compounds are of one type when they have
equal numbers of atoms of each element and equal distances to the nearest neighbours of each element.

Own code because pymatgen's SubstitutionPredictor proposes ions, with oxidation states, for a given structure; here
structures are wanted for given elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations

import numpy as np
import pandas as pd
from ase.data import atomic_numbers
from pymatgen.core import Element

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import cell_vectors
from model.crystals.matching import neighbour_distances
from model.files import DATA
from model.symmetry.space_group import space_group

PACKAGED_TYPES = DATA / "prototypes.parquet"
TYPE_NEIGHBOURS = 16  # their distances distinguish types
SAME_TYPE = 0.05  # of (volume per atom)^(1/3), largest difference of the mean k-th neighbour distances within one type
SCALE = 1_200_000  # steps per cell vector of stored coordinates; coarser ones break space groups at SYMPREC
SYMPREC = 0.01  # Å, tolerance of the space groups in the table, as in relaxations that keep them
POPULAR = 0.1  # units of electronegativity that e times as many known compounds make up for
RATTLE = 0.1  # Å


@dataclass(frozen=True, eq=False)
class Prototype:
    """A structure type.

    Attributes:
        name: identifier of the compound that represents it.
        crystal: that compound.
        electronegativity: atomic number in it -> mean electronegativity on these sites over all compounds of the type.
        compounds: known compounds of the type.
    """

    name: str
    crystal: Crystal
    electronegativity: Mapping[int, float]
    compounds: int

    @cached_property
    def mean_distances(self) -> dict[int, np.ndarray]:
        """Atomic number -> (16,) mean distances to the k-th neighbours at a volume of 1 per atom."""
        return _mean_distances(self.crystal)


@dataclass(frozen=True, eq=False)
class Substitution:
    """A prototype whose elements are substituted.

    Attributes:
        prototype: where the atoms are.
        elements: atomic number in the prototype -> atomic number in its place.
    """

    prototype: Prototype
    elements: Mapping[int, int]

    @property
    def substitution_distance(self) -> float:
        """Mean difference of electronegativity to the usual elements of the places; less for popular types."""
        numbers = self.prototype.crystal.numbers
        differences = [
            abs(self.prototype.electronegativity[z] - electronegativity(self.elements[z])) for z in numbers.tolist()
        ]
        return float(np.mean(differences) - POPULAR * np.log(self.prototype.compounds))

    def crystal(self, volume: float, rng: np.random.Generator | None = None) -> Crystal:
        """The crystal at a volume (Å³), atoms by atomic number; with ``rng`` each atom is displaced by about 0.1 Å."""
        known = self.prototype.crystal
        numbers = np.array([self.elements[z] for z in known.numbers.tolist()])
        order = np.argsort(numbers, kind="stable")
        lattice = known.lattice * np.cbrt(volume / known.volume)
        noise = np.zeros((len(known), 3)) if rng is None else RATTLE / np.sqrt(3) * rng.normal(size=(len(known), 3))
        return Crystal(lattice, (known.fractional + noise @ np.linalg.inv(lattice))[order], numbers[order]).wrapped()


@cache
def substitutions(cell: CellFormula, hidden: frozenset[str] = frozenset()) -> tuple[Substitution, ...]:
    """All ways to make a cell of these atoms from a known structure type, the most similar elements first.

    Prototypes that consist of ``hidden`` elements only are left out.

    >>> best = substitutions(CellFormula.parse("MgO"))[0]
    >>> best.prototype.name, best.crystal(volume=18.7).formula
    ('mp-1000', 'MgO')
    """
    counts = {atomic_numbers[element]: count for element, count in cell.counts}
    known = [
        one for one in _library().get(tuple(sorted(counts.values())), []) if not set(one.crystal.symbols) <= hidden
    ]
    found = [one for prototype in known for one in _different_substitutions(prototype, counts)]
    return tuple(sorted(found, key=lambda one: (one.substitution_distance, one.prototype.name)))


def assignments(places: Mapping[int, int], elements: Mapping[int, int]) -> list[dict[int, int]]:
    """All ways to put elements (atomic number -> count) in the place of others with as many atoms each.

    >>> assignments({11: 4, 17: 4}, {12: 4, 8: 4})
    [{11: 12, 17: 8}, {11: 8, 17: 12}]
    """
    return [
        dict(zip(places, chosen, strict=True))
        for chosen in permutations(elements)
        if all(count == elements[new] for count, new in zip(places.values(), chosen, strict=True))
    ]


def _different_substitutions(prototype: Prototype, counts: Mapping[int, int]) -> list[Substitution]:
    """The ways to put elements in the places of a prototype; those that only swap equivalent places count once."""
    places = tuple(prototype.electronegativity)
    size = {z: int((prototype.crystal.numbers == z).sum()) for z in places}
    fitting = assignments(size, counts)
    if len(fitting) == 1:
        return [Substitution(prototype, fitting[0])]
    rows = dict(zip(places, prototype.mean_distances.values(), strict=True))
    kept: list[tuple[np.ndarray, Substitution]] = []
    for elements in fitting:
        seen = np.stack([rows[z] for z in sorted(places, key=lambda z: elements[z])])
        if not any(np.abs(seen - other).max() < SAME_TYPE for other, _ in kept):
            kept.append((seen, Substitution(prototype, elements)))
    return [one for _, one in kept]


def _mean_distances(crystal: Crystal) -> dict[int, np.ndarray]:
    """Atomic number -> (16,) mean distances to the k-th neighbours at a volume of 1 per atom."""
    distances = neighbour_distances(crystal, TYPE_NEIGHBOURS) / np.cbrt(crystal.volume / len(crystal))
    return {z: distances[crystal.numbers == z].mean(0) for z in np.unique(crystal.numbers).tolist()}


def electronegativity(z: int) -> float:
    """Pauling's electronegativity; 2 for elements without one."""
    return float(Element.from_Z(z).data.get("X") or 2.0)


@cache
def _library() -> dict[tuple[int, ...], list[Prototype]]:
    """The packaged prototypes by their numbers of atoms of each element, sorted."""
    library: dict[tuple[int, ...], list[Prototype]] = {}
    for prototype in read(pd.read_parquet(PACKAGED_TYPES)):
        counts = np.unique(prototype.crystal.numbers, return_counts=True)[1]
        library.setdefault(tuple(sorted(counts.tolist())), []).append(prototype)
    return library


def read(frame: pd.DataFrame) -> Iterator[Prototype]:
    """Prototypes of a table that `collect` made."""
    for row in frame.itertuples():
        cell = np.array(row.cell)
        crystal = Crystal(cell_vectors(cell[:3], cell[3:]), np.array(row.fractional) / SCALE, np.array(row.numbers))
        places = np.unique(crystal.numbers).tolist()
        mean = dict(zip(places, (x / 100 for x in row.electronegativity), strict=True))
        yield Prototype(str(row.name), crystal, mean, int(row.compounds))


def collect(crystals: Iterable[tuple[str, Crystal]]) -> pd.DataFrame:
    """A table of the structure types among crystals, each represented by its first crystal.

    Args:
        crystals: identifier and crystal, the most stable first.

    Returns:
        one row per type: what `read` needs, and the number of the space group (``space_group``).
    """
    types: dict[tuple[int, ...], list[_Type]] = {}
    for name, crystal in crystals:
        found = _Type.of(name, crystal)
        known = types.setdefault(found.label, [])
        same = next((one for one in known if np.abs(one.distances - found.distances).max() < SAME_TYPE), None)
        if same is None:
            known.append(found)
        else:
            same.members.extend(found.members)
    return pd.DataFrame([one.row() for some in types.values() for one in some])


@dataclass(eq=False, kw_only=True)
class _Type:
    name: str
    crystal: Crystal
    label: tuple[int, ...]  # atoms of each element
    distances: np.ndarray  # (species, 16) mean distances to the k-th neighbours at a volume of 1 per atom
    places: list[int]  # atomic numbers in the order of label and distances
    members: list[list[float]]  # electronegativities of each compound, in the same order

    @classmethod
    def of(cls, name: str, crystal: Crystal) -> _Type:
        means = _mean_distances(crystal)
        counts = {z: int((crystal.numbers == z).sum()) for z in means}
        places = sorted(means, key=lambda z: (counts[z], *means[z].round(2), electronegativity(z)))
        label = tuple(counts[z] for z in places)
        rows = np.stack([means[z] for z in places])
        return cls(
            name=name,
            crystal=crystal.wrapped(),
            label=label,
            distances=rows,
            places=places,
            members=[[electronegativity(z) for z in places]],
        )

    def row(self) -> dict[str, object]:
        mean = dict(zip(self.places, np.mean(self.members, axis=0), strict=True))
        lengths = np.linalg.norm(self.crystal.lattice, axis=1)
        unit = self.crystal.lattice / lengths[:, None]
        angles = np.degrees(np.arccos([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]))
        return {
            "name": self.name,
            "cell": np.round([*lengths, *angles], 3).astype(np.float32),
            "numbers": self.crystal.numbers.astype(np.int8),
            "fractional": np.rint(self.crystal.fractional.ravel() * SCALE).astype(np.int32) % SCALE,
            "electronegativity": np.rint([100 * mean[z] for z in sorted(mean)]).astype(np.int16),
            "compounds": len(self.members),
            "space_group": group.number if (group := space_group(self.crystal, SYMPREC)) else 1,
        }
