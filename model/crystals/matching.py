"""Telling new crystals from duplicates of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.optimization.neighbors import find_points_in_spheres

from model.crystals.crystal import Crystal
from model.settings import Settings

FINGERPRINT_NEIGHBOURS = 12


class DistinctSettings(Settings):
    """When two crystals are the same: all of these conditions hold.

    The first four are cheap and only save calls of the matcher. Moving every atom by at most u changes the distance to
    the k-th nearest atom of any element, and so the mean and the standard deviation of these distances, by at most 2u;
    a strain s changes them by at most a share s. With the defaults, crystals that differ by up to 0.2 Å and 2 % of
    strain always reach the matcher. The matcher compares primitive cells, and so often takes a crystal and a distorted
    supercell of it for two. With ``supercells`` it finds them up to 0.1 Å of disorder (root mean square), but then
    tells high-symmetry phases from their distorted supercells only by energy and the first four tests.
    """

    volume_tolerance: float = 0.1  # relative difference of the volumes per atom
    distance_tolerance: float = 0.5  # Å, difference of the mean distances, see `distance_fingerprints`
    rms_tolerance: float = 0.5  # Å, root mean square difference of the means and standard deviations
    energy_tolerance: float | None = None  # eV/atom; of crystals that are relaxed
    matcher: bool = True  # False: the conditions above decide alone
    matches: int | None = None  # maximum calls of the matcher per crystal, most similar ones first; None: no limit
    ltol: float = 0.2  # StructureMatcher: relative tolerance of lengths
    stol: float = 0.3  # StructureMatcher: sites, in units of (volume per atom)^(1/3)
    angle_tol: float = 5.0  # StructureMatcher: degrees
    supercells: bool = False  # StructureMatcher: also compare supercells of the smaller cell with the larger one
    same_space_group: bool = False  # crystals of known, different space groups are different


# Before relaxation: crystals that differ by more than some 0.03 Å, or in a space group to keep, may become different.
UNRELAXED = DistinctSettings(stol=0.01, same_space_group=True)
# Relaxations into the same minimum agree to 0.1 Å, and thus to a few meV/atom.
RELAXED = DistinctSettings(
    volume_tolerance=0.05,
    distance_tolerance=0.2,
    rms_tolerance=0.12,
    energy_tolerance=0.01,
    matches=8,
    supercells=True,
)

# The same for many thousands of crystals: where the distances decide, the matcher agrees in all but a few per cent.
LOOKED_UP = DistinctSettings(
    volume_tolerance=0.05, distance_tolerance=0.2, rms_tolerance=0.06, energy_tolerance=0.005, matcher=False
)

# A crystal and a known phase, relaxed with different methods: layers and molecules may lie 10 % further apart.
KNOWN = DistinctSettings(
    volume_tolerance=0.3, distance_tolerance=0.5, rms_tolerance=0.25, stol=0.2, same_space_group=True
)

# Layers, chains and molecules that hardly touch lie anywhere at the same energy: one crystal, whatever its volume.
TIED = DistinctSettings(
    volume_tolerance=3.0, distance_tolerance=5.0, rms_tolerance=5.0, energy_tolerance=5e-4, matches=8, supercells=True
)


class DistinctCrystals:
    """A growing set of distinct crystals; each takes a few hundred bytes.

    >>> seen = DistinctCrystals()
    >>> cube = Crystal(3.6 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    >>> seen.add(cube), seen.add(cube.replace(fractional=cube.fractional + 0.1))
    (None, 0)
    """

    def __init__(self, settings: DistinctSettings | None = None) -> None:
        self.settings = settings or DistinctSettings()
        self._matcher = StructureMatcher(
            ltol=self.settings.ltol,
            stol=self.settings.stol,
            angle_tol=self.settings.angle_tol,
            attempt_supercell=self.settings.supercells,
        )
        self._known: dict[str, _Known] = {}
        self._seen = 0

    def __len__(self) -> int:
        """Number of distinct crystals."""
        return sum(known.count for known in self._known.values())

    def add(
        self,
        crystal: Crystal,
        space_group: int | None = None,
        *,
        energy: float | None = None,
        fingerprint: np.ndarray | None = None,
    ) -> int | None:
        """Add a crystal.

        Args:
            crystal: the crystal.
            space_group: its number, compared only if the settings ask for it and both numbers are known.
            energy: eV/atom, compared only if the settings ask for it; then every crystal needs one.
            fingerprint: of `distance_fingerprints`, if it is known already.

        Returns:
            None if the crystal is new; else the index, counted over all calls of `add` from 0, of the crystal that it
            repeats (of several, the one with the most similar neighbour distances).
        """
        features = _features(crystal, space_group, energy, fingerprint)
        found, own = self._find(crystal, features)
        if found is None:
            self._keep(crystal, features, own)
        else:
            self._seen += 1
        return found

    def keep(self, crystal: Crystal, space_group: int | None = None, *, fingerprint: np.ndarray | None = None) -> None:
        """Add a crystal that is distinct, whatever it resembles; arguments as in `add`."""
        self._keep(crystal, _features(crystal, space_group, None, fingerprint), None)

    def find(self, crystal: Crystal, space_group: int | None = None) -> int | None:
        """What `add` returns, without adding the crystal."""
        return self._find(crystal, _features(crystal, space_group, None, None))[0]

    def _find(self, crystal: Crystal, features: _Features) -> tuple[int | None, Structure | None]:
        """Index of the crystal that this one repeats, and its own primitive cell if that was needed."""
        known, own = self._known.get(crystal.formula), None
        if known is None:
            return None, None
        for place in known.alike(features, self.settings):
            if not self.settings.matcher:
                return int(known.index[place]), None
            own = _primitive(crystal) if own is None else own
            if self._matcher.fit(known.primitive(place), own, skip_structure_reduction=True):
                return int(known.index[place]), own
        return None, own

    def _keep(self, crystal: Crystal, features: _Features, primitive: Structure | None) -> None:
        known = self._known.setdefault(crystal.formula, _Known(features[-1].size))
        whole = crystal if primitive is None else Crystal.from_pymatgen(primitive)
        stored = whole.to_bytes() if self.settings.matcher else b""
        known.add(features, stored, primitive is not None, self._seen)
        self._seen += 1


class _Known:
    """Crystals of one formula: what is compared as arrays, and the crystals in few bytes."""

    def __init__(self, width: int) -> None:
        self.count, self.crystals = 0, list[bytes]()
        self.fingerprints = np.empty((4, width), dtype=np.float32)
        self.volumes, self.energies = np.empty(4), np.empty(4)
        self.groups, self.index = np.empty(4, dtype=np.int16), np.empty(4, dtype=np.int64)
        self.reduced = np.empty(4, dtype=bool)  # whether it is the primitive cell that is kept

    def alike(self, features: _Features, settings: DistinctSettings) -> np.ndarray:
        """Places of those that may be the same crystal, the most similar first."""
        volume, energy, group, fingerprint = features
        n = self.count
        close = np.abs(self.volumes[:n] - volume) <= np.log1p(settings.volume_tolerance)
        if settings.energy_tolerance is not None:
            close &= np.abs(self.energies[:n] - energy) <= settings.energy_tolerance
        if settings.same_space_group and group:
            close &= (self.groups[:n] == group) | (self.groups[:n] == 0)
        places = np.flatnonzero(close)
        difference = np.abs(self.fingerprints[places] - fingerprint.astype(np.float32))
        mean, rms = difference[:, : len(fingerprint) // 2], np.sqrt((difference**2).mean(axis=1))
        alike = (mean.max(axis=1, initial=0.0) <= settings.distance_tolerance) & (rms <= settings.rms_tolerance)
        order = np.argsort(rms[alike], kind="stable")
        found: np.ndarray = places[alike][order[: settings.matches]]
        return found

    def primitive(self, place: int) -> Structure:
        """The primitive cell that the matcher compares; found once, not once per comparison."""
        crystal = Crystal.from_bytes(self.crystals[place])
        if self.reduced[place]:
            return crystal.to_pymatgen()
        found = _primitive(crystal)
        self.crystals[place], self.reduced[place] = Crystal.from_pymatgen(found).to_bytes(), True
        return found

    def add(self, features: _Features, content: bytes, reduced: bool, index: int) -> None:
        """Keep one more, in its primitive cell if that is known already (``reduced``)."""
        if self.count == len(self.index):
            for name in ("fingerprints", "volumes", "energies", "groups", "index", "reduced"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.empty_like(column)]))
        n, self.count = self.count, self.count + 1
        self.volumes[n], self.energies[n], self.groups[n], self.fingerprints[n] = features
        self.index[n], self.reduced[n] = index, reduced
        self.crystals.append(content)


def same_framework(one: Crystal, other: Crystal) -> bool:
    """Whether two hosts are the same framework: topotactic.

    pymatgen's StructureMatcher maps one onto the other, whose cell may be a multiple of the first, with a
    root-mean-square displacement of at most 0.3 of the mean spacing of atoms.
    """
    matcher = StructureMatcher(primitive_cell=False, attempt_supercell=True)
    distance = matcher.get_rms_dist(one.to_pymatgen(), other.to_pymatgen())
    return distance is not None and bool(distance[0] <= matcher.stol)


def _primitive(crystal: Crystal) -> Structure:
    reduced = crystal.to_pymatgen().get_reduced_structure("niggli")
    whole = np.gcd.reduce(np.bincount(crystal.numbers)) == 1  # no smaller cell can hold the composition
    return reduced if whole else reduced.get_primitive_structure()


def _features(
    crystal: Crystal, space_group: int | None, energy: float | None, fingerprint: np.ndarray | None
) -> _Features:
    if fingerprint is None:
        (fingerprint,) = distance_fingerprints([crystal])
    return np.log(crystal.volume / len(crystal)), energy or 0.0, space_group or 0, fingerprint.ravel()


_Features = tuple[float, float, int, np.ndarray]  # ln(Å³/atom), eV/atom, space group or 0, fingerprint


def neighbour_distances(crystal: Crystal, count: int) -> np.ndarray:
    """(n, count) distances in Å from each atom to its nearest atoms or images, ascending."""
    return _nearest(crystal, np.zeros(len(crystal), dtype=np.intp), count)[:, 0]


def distance_fingerprints(crystals: Sequence[Crystal], count: int = FINGERPRINT_NEIGHBOURS) -> list[np.ndarray]:
    """Of each crystal (2, elements, elements, count): distances in Å to the k-th nearest atom of each element.

    First their mean over the atoms of each element, then their standard deviation; elements by atomic number.
    Independent of origin, orientation, choice of cell and order of atoms.
    """
    found = []
    for crystal in crystals:
        kind = np.unique(crystal.numbers, return_inverse=True)[1]
        distances = _nearest(crystal, kind, count)
        each = [distances[kind == k] for k in range(distances.shape[1])]
        found.append(np.stack([[one.mean(0) for one in each], [one.std(0) for one in each]]))
    return found


def packed(fingerprint: np.ndarray) -> bytes:
    """A fingerprint in the form in which it is stored, exact to some 0.005 Å."""
    return fingerprint.astype(np.float16).tobytes()


def unpacked(content: bytes) -> np.ndarray:
    """Inverse of `packed`, flat."""
    return np.frombuffer(content, dtype=np.float16).astype(np.float32)


def _nearest(crystal: Crystal, kind: np.ndarray, count: int) -> np.ndarray:
    """(n, kinds, count) distances in Å to the nearest atoms or images of each kind (n,), ascending."""
    cutoff = 1.2 * np.cbrt(crystal.volume / np.bincount(kind).min() * count / 4.0)
    while (found := _within(crystal, kind, cutoff, count)) is None:
        cutoff *= 1.3
    return found


def _within(crystal: Crystal, kind: np.ndarray, cutoff: float, count: int) -> np.ndarray | None:
    """The same; None if an atom has fewer neighbours of a kind within ``cutoff`` Å."""
    positions, lattice = np.ascontiguousarray(crystal.cartesian), np.ascontiguousarray(crystal.lattice)
    periodic, kinds = np.ones(3, dtype=np.int64), int(kind.max()) + 1
    atom, other, image, distance = find_points_in_spheres(positions, positions, cutoff, periodic, lattice)
    neighbour = (atom != other) | image.any(axis=1)
    row, distance = kinds * atom[neighbour] + kind[other[neighbour]], distance[neighbour]
    have = np.bincount(row, minlength=kinds * len(crystal))
    if have.min() < count:
        return None
    ascending = distance[np.lexsort((distance, row))]
    nearest: np.ndarray = ascending[(np.cumsum(have) - have)[:, None] + np.arange(count)]
    return nearest.reshape(len(crystal), kinds, count)
