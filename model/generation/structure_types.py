"""Structure types of the library of known phases, and how alike elements are on their sites.

Two phases are of one type when they have equal numbers of atoms of each element in the cell, one space group, and equal
distances to the nearest neighbours of each element at equal volume. `benchmarks/structure_types.py` makes the packaged
tables: the type of each phase, and the vectors of the elements. These are learnt: the closer the vectors of two
elements, the likelier compounds that differ in them are of one type. The volumes of the elements are fitted to the
volumes of compounds of one type.

Own code because pymatgen's substitution probabilities are those of oxidation states in 2011; these are learnt from ten
times as many compounds, and tested in docs/science.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ase.data import atomic_numbers

from model.crystals.crystal import Crystal
from model.crystals.matching import neighbour_distances
from model.files import DATA
from model.library.phases import PhaseLibrary

PACKAGED_TYPES = DATA / "structure-types.parquet"
PACKAGED_ELEMENTS = DATA / "elements.csv"
NEIGHBOURS = 16  # their distances distinguish types
SAME_TYPE = 0.06  # of (volume per atom)^(1/3), largest difference of the mean k-th neighbour distances within one type
CLASSES = (2.5, 3.3)  # electronegativity, between pnictides and sulphides, and between chlorides and oxides
HEAVIEST = 103  # atomic number of the last element with a vector


@dataclass(frozen=True, eq=False)
class Elements:
    """What is known of the elements.

    Attributes:
        vectors: (104, D) by atomic number; the likelihood that one replaces the other falls with exp(−|u − v|²).
        volumes: (3, 104) Å³ per atom by atomic number, in compounds whose most electronegative element has a Pauling
            electronegativity up to the limits `CLASSES`, or above; only their ratios are of use.
        electronegativity: (104,) by atomic number.
    """

    vectors: np.ndarray
    volumes: np.ndarray
    electronegativity: np.ndarray

    def unlike(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(...,) squared distance of the vectors of elements, given as arrays of atomic numbers that broadcast."""
        squares: np.ndarray = np.square(self.vectors[some] - self.vectors[others]).sum(-1)
        return squares

    def volume(self, numbers: np.ndarray) -> float:
        """Of a cell with these atoms (n,), Å³ on a scale of its own."""
        return float(self.volumes[self.bonding(numbers), numbers].sum())

    def bonding(self, numbers: np.ndarray) -> int:
        """Row of `volumes` for a compound of these elements: metals, salts of larger anions, oxides and fluorides."""
        return int(np.searchsorted(CLASSES, self.electronegativity[numbers].max()))


@cache
def packaged_elements() -> Elements:
    """The elements as they were learnt."""
    frame = pd.read_csv(PACKAGED_ELEMENTS, index_col="element")
    values = np.full((HEAVIEST + 1, frame.shape[1]), np.nan)
    values[[atomic_numbers[symbol] for symbol in frame.index]] = frame.to_numpy()
    values[np.isnan(values)] = np.nanmean(frame.to_numpy())  # of elements that no compound has
    return Elements(values[:, 4:], values[:, 1:4].T, values[:, 0])


@dataclass(frozen=True, eq=False)
class Family:
    """The phases with the same numbers of atoms of each element.

    Attributes:
        counts: (k,) atoms of each element, ascending.
        names: (M,) identifiers of the phases.
        types: (M,) number of each one's type.
        elements: (M, k) atomic numbers on the sites of the type, so that all phases of one type have the same order.
        twins: type -> orders of its sites that lead to the same type again, the identity first.
    """

    counts: tuple[int, ...]
    names: np.ndarray
    types: np.ndarray
    elements: np.ndarray
    twins: Mapping[int, np.ndarray]

    @property
    def orders(self) -> np.ndarray:
        """(P, k) ways to put as many elements on the sites."""
        return orders(self.counts)


class StructureTypes:
    """The types of the phases of a library, found by the counts of their atoms.

    Args:
        library: whose phases may serve; those that a view leaves out do not.
    """

    def __init__(self, library: PhaseLibrary) -> None:
        self.library = library
        self._families: dict[tuple[int, ...], Family | None] = {}

    def family(self, counts: Sequence[int]) -> Family | None:
        """The phases with these numbers of atoms of each element in the cell, in any order; None if there are none."""
        key = tuple(sorted(counts))
        if key not in self._families:
            self._families[key] = self._read(key)
        return self._families[key]

    def with_another(self, counts: Sequence[int]) -> list[tuple[int, ...]]:
        """Numbers of atoms of families with one more element than these."""
        return _with_another().get(label(counts), [])

    def _read(self, counts: tuple[int, ...]) -> Family | None:
        rows = _rows().get(label(counts))
        if rows is None:
            return None
        found = _table().slice(*rows).combine_chunks()
        names, types = (found[name].to_numpy() for name in ("material_id", "type"))
        known = np.array([name in self.library.material_ids for name in names], dtype=bool)
        if not known.any():
            return None
        elements = found["elements"].combine_chunks().flatten().to_numpy().reshape(-1, len(counts)).astype(np.int64)
        ways = orders(counts)
        twins = {int(t): ways[some] for t, some in zip(types, found["twins"].to_pylist(), strict=True)}
        return Family(counts, names[known], types[known], elements[known], twins)


@cache
def _table() -> pa.Table:
    return pq.read_table(PACKAGED_TYPES)


@cache
def _rows() -> dict[str, tuple[int, int]]:
    """Numbers of atoms, as `label` writes them -> first row and number of rows of the table, sorted by them."""
    labels, first, length = np.unique(_table()["counts"].to_numpy(), return_index=True, return_counts=True)
    return {str(one): (int(i), int(n)) for one, i, n in zip(labels, first, length, strict=True)}


@cache
def _with_another() -> dict[str, list[tuple[int, ...]]]:
    """Numbers of atoms, as `label` writes them -> those of families that have one more element."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for name in _rows():
        counts = tuple(map(int, name.split("-")))
        for count in sorted(set(counts)):
            rest = list(counts)
            rest.remove(count)
            found.setdefault(label(rest), []).append(counts)
    return found


def label(counts: Sequence[int]) -> str:
    """Numbers of atoms as the table has them, such as ``1-1-3``."""
    return "-".join(map(str, sorted(counts)))


@cache
def orders(counts: tuple[int, ...]) -> np.ndarray:
    """(P, k) orders of sites that put elements on sites with as many atoms; the identity first.

    >>> orders((1, 2, 2)).tolist()
    [[0, 1, 2], [0, 2, 1]]
    """
    blocks = [[i for i, n in enumerate(counts) if n == count] for count in sorted(set(counts))]
    return np.array([sum(ways, ()) for ways in product(*(list(permutations(block)) for block in blocks))])


def mean_distances(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """(k,) atomic numbers, those with the fewest atoms first, and (k, 16) mean distances to their k-th neighbours.

    Distances are those at a volume of 1 per atom.
    """
    distances = neighbour_distances(crystal, NEIGHBOURS) / np.cbrt(crystal.volume / len(crystal))
    numbers, counts = np.unique(crystal.numbers, return_counts=True)
    numbers = numbers[np.argsort(counts, kind="stable")]
    return numbers, np.stack([distances[crystal.numbers == z].mean(0) for z in numbers])


class TypeCollector:
    """Assigns crystals to types, one after the other; each type is represented by its first crystal."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[int, ...], int], list[tuple[int, np.ndarray]]] = {}
        self.count = 0

    def add(self, crystal: Crystal, space_group: int) -> dict[str, object]:
        """The columns ``counts``, ``type``, ``elements`` and ``twins`` of a crystal in the packaged table."""
        numbers, rows = mean_distances(crystal)
        counts = tuple(int((crystal.numbers == z).sum()) for z in numbers)
        ways = orders(counts)
        known = self._known.setdefault((counts, space_group), [])
        apart = np.array([[np.abs(rows[way] - other).max() for way in ways] for _, other in known]).reshape(
            -1, len(ways)
        )
        if apart.size and apart.min() < SAME_TYPE:
            which, way = np.unravel_index(apart.argmin(), apart.shape)
            number, rows = known[which]
            numbers = numbers[ways[way]]
        else:
            number, self.count = self.count, self.count + 1
            known.append((number, rows))
        twins = [n for n, way in enumerate(ways) if np.abs(rows[way] - rows).max() < SAME_TYPE]
        return {"counts": label(counts), "type": number, "elements": numbers.tolist(), "twins": twins}
