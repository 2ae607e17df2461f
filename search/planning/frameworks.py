"""The distinct frameworks of a search, where each came from, and its possible fillings."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.matching import DistinctCrystals, DistinctSettings, distance_fingerprints, packed, unpacked
from model.generation.known_hosts import GUESTS, KnownHost, known_hosts
from model.generation.structure_types import StructureTypes
from model.generators.interface import Guests
from model.symmetry.space_group import ANGLE_TOLERANCE, SYMPREC, Refined, refine
from search.storage.crystal_files import NamedCrystal, read_crystal
from search.storage.rows import HistoryRow, StoredCrystal, StoredFramework


@dataclass(eq=False, slots=True, kw_only=True)
class KnownFramework:
    """A framework of the pool. There may be very many, so each stores little.

    Attributes:
        name: identity, as stored with the first crystal in which it was found.
        content: its host, see `Crystal.to_bytes`.
        space_group: symbol.
        space_group_number: 1 to 230.
        symprec: tolerance (Å) at which the space group was found.
        displacement: Å, largest displacement of an atom by symmetrisation.
        parent: candidate in which it was found; None for one from a file or a known phase.
        bravais_lattice: Bravais lattice in which that candidate was generated.
        guests: fillings with which it was found.
        parent_e_d: eV/atom, lowest E_d of all crystals in which it was found; None if there is none.
    """

    name: str
    content: bytes
    space_group: str
    space_group_number: int
    symprec: float
    displacement: float
    parent: str | None = None
    bravais_lattice: str | None = None
    guests: list[Guests] = field(default_factory=list)
    parent_e_d: float | None = None

    @classmethod
    def of(cls, found: StoredFramework, row: HistoryRow | None) -> KnownFramework:
        """From a stored framework and the candidate in which it was found (None for one from a file)."""
        return cls(
            name=found.framework,
            content=found.host.crystal.to_bytes(),
            space_group=found.space_group,
            space_group_number=found.space_group_number,
            symprec=found.symprec,
            displacement=found.displacement,
            parent=None if row is None else row.candidate,
            bravais_lattice=None if row is None else row.bravais_lattice,
        )

    @property
    def given(self) -> bool:
        """Whether it comes from a file or a known phase; if so, it always ranks among the best."""
        return self.parent is None

    @property
    def host(self) -> Crystal:
        """The crystal to fill."""
        return Crystal.from_bytes(self.content)

    def seen(self, guests: Mapping[str, int], e_d: float | None) -> None:
        """Record another crystal with this framework."""
        found = tuple(sorted((element, int(count)) for element, count in guests.items()))
        if found and found not in self.guests:
            self.guests.append(found)
        if e_d is not None:
            self.parent_e_d = e_d if self.parent_e_d is None else min(self.parent_e_d, e_d)


class FrameworkPool:
    """Distinct frameworks in the order in which they were found.

    Two frameworks are the same if their cells contain the same atoms, their space groups agree, their volumes differ by
    less than ``volume_change``, and their neighbour distances by less than 0.12 Å (root mean square). The first one
    found represents all its copies.

    Args:
        volume_change: see above.
        files: hosts from files and of known phases.
        size: maximum number of frameworks to fill. Once there are this many, frameworks of crystals with higher E_d are
            skipped, because they cannot be among the best; None keeps everything.
    """

    def __init__(self, volume_change: float, files: Sequence[StoredFramework] = (), size: int | None = None) -> None:
        self.known: dict[str, KnownFramework] = {}
        self._size = size
        self._settings = DistinctSettings(
            same_space_group=True, volume_tolerance=volume_change, rms_tolerance=0.12, matcher=False
        )
        self._distinct: dict[bytes, DistinctCrystals] = {}
        self._names: dict[bytes, list[str]] = {}
        self._take([(found, None) for found in files])

    def read(self, rows: Iterable[HistoryRow]) -> None:
        """Add the frameworks of stored candidates."""
        highest = self.max_parent_e_d
        low = [row for row in rows if row.e_d is None or row.e_d <= highest]
        self._take([(found, row) for row in low for found in row.frameworks or ()])

    def _take(self, found: Sequence[tuple[StoredFramework, HistoryRow | None]]) -> None:
        for framework, row in found:
            name = self._first(framework, row)
            self.known[name].seen(framework.guests, None if row is None else row.e_d)

    def best(self) -> list[KnownFramework]:
        """The frameworks to fill: those from files, then by the E_d of the best crystal that contained them."""
        return heapq.nsmallest(self._size or len(self.known), self.known.values(), key=_rank)

    @property
    def max_parent_e_d(self) -> float:
        """Parent E_d (eV/atom) of the last of the best; infinite while there are fewer than ``size``."""
        if self._size is None or len(self.known) < self._size:
            return math.inf
        return _rank(self.best()[-1])

    def _first(self, found: StoredFramework, row: HistoryRow | None) -> str:
        """Name of the framework that represents this one (possibly itself)."""
        host = found.host.crystal
        key = np.sort(host.numbers).tobytes()
        names = self._names.setdefault(key, [])
        distinct = self._distinct.setdefault(key, DistinctCrystals(self._settings))
        same = distinct.add(host, found.space_group_number, fingerprint=unpacked(found.fingerprint))
        names.append(found.framework if same is None else names[same])
        if same is None:
            self.known[found.framework] = KnownFramework.of(found, row)
        return names[-1]


def _rank(framework: KnownFramework) -> float:
    return -math.inf if framework.given or framework.parent_e_d is None else framework.parent_e_d


def fillings(
    framework: KnownFramework, cells: Iterable[CellFormula], elements: Sequence[str], count_range: int
) -> Iterator[Guests]:
    """Possible fillings of a framework: those it was found with, then others that give a cell of the search.

    Args:
        framework: the host.
        cells: cells that are searched.
        elements: allowed guest elements.
        count_range: largest difference in the number of guest atoms from a filling that was found; for a framework from
            a file, every filling that gives one of the cells is possible.
    """
    yield from framework.guests
    host = CellFormula.parse(framework.host.composition.formula).as_dict
    for cell in cells:
        guests = _rest(cell.as_dict, host)
        if guests is None or guests in framework.guests or not {element for element, _ in guests} <= set(elements):
            continue
        if framework.given or any(_distance(guests, found) <= count_range for found in framework.guests):
            yield guests


def _rest(cell: Mapping[str, int], host: Mapping[str, int]) -> Guests | None:
    """Atoms of a cell that are not part of its host; None if the host does not fit or nothing is left."""
    rest = {element: count - host.get(element, 0) for element, count in cell.items()}
    if min(rest.values()) < 0 or any(element not in cell for element in host) or not any(rest.values()):
        return None
    return tuple(sorted((element, count) for element, count in rest.items() if count))


def _distance(some: Guests, others: Guests) -> int:
    """Number of atoms by which two fillings differ."""
    a, b = dict(some), dict(others)
    return sum(abs(a.get(element, 0) - b.get(element, 0)) for element in {*a, *b})


def frameworks_from_files(paths: Iterable[str | Path]) -> list[StoredFramework]:
    """Hosts from files, or from all files of a folder, in their primitive cells.

    They are symmetrised to the space group that they have within 0.1 Å (`SYMPREC`).

    Raises:
        ValueError: a file cannot be read, or a folder holds none.
    """
    return [_from_file(one) for one in framework_files(paths)]


def frameworks_of_library(
    cells: Iterable[CellFormula], guests: Sequence[str] | None, types: StructureTypes, limit: int
) -> list[StoredFramework]:
    """Hosts of known phases for the cells of a search, in the cells that they are filled in, the likeliest first.

    Args:
        cells: of the search.
        guests: elements that are placed; None for those that often are guests (`GUESTS`).
        types: the known structure types that may serve.
        limit: number of hosts.
    """
    if not limit:
        return []
    allowed = guests or GUESTS
    found = [
        host
        for cell in cells
        for guest in cell.elements
        if guest in allowed and len(cell.counts) > 1
        for host in known_hosts(cell, guest, types)
    ]
    hosts: dict[tuple[str, tuple[tuple[int, int], ...]], KnownHost] = {}
    for host in sorted(found, key=lambda host: (host.unlikeliness, host.name, str(host.cell))):
        hosts.setdefault((host.name, tuple(host.elements.items())), host)
    return [_of_known(host) for host in list(hosts.values())[:limit]]


def _of_known(host: KnownHost) -> StoredFramework:
    crystal = host.crystal
    return _stored(f"known-{host.name}-{crystal.identity[:8]}", crystal, refine(crystal))


def framework_files(paths: Iterable[str | Path]) -> list[NamedCrystal]:
    """Hosts from files, or from all files of a folder, as they are, with what to tell the user about them.

    Raises:
        ValueError: a file cannot be read, or a folder holds none.
    """
    return [read_crystal(path) for path in _files(paths)]


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        if not inside:
            raise ValueError(f"frameworks.files: the folder {path} is empty; put hosts (CIF, POSCAR) into it")
        yield from inside


def _from_file(read: NamedCrystal) -> StoredFramework:
    host = Crystal.from_pymatgen(read.crystal.to_pymatgen().get_primitive_structure())
    # The name has a hash of the crystal as read: the same on every machine.
    return _stored(f"file-{read.name}-{read.crystal.identity[:8]}", host, refine(host))


def _stored(name: str, host: Crystal, refined: Refined | None) -> StoredFramework:
    """A host moved onto its group, if it has one above P1."""
    return StoredFramework(
        framework=name,
        host=StoredCrystal.of(refined.parent if refined and refined.space_group.number > 1 else host),
        guests={},
        space_group=refined.space_group.symbol if refined else "P1",
        space_group_number=refined.space_group.number if refined else 1,
        symprec=SYMPREC,
        angle_tolerance=ANGLE_TOLERANCE,
        displacement=refined.displacement if refined else 0.0,
        fingerprint=packed(distance_fingerprints([host])[0]),
    )
