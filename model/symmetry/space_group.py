"""Space groups with explicit tolerances, and crystals symmetrised to them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import spglib
from ase.geometry import minkowski_reduce
from scipy.optimize import linear_sum_assignment

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import rounded_lengths, rounded_steps

os.environ.setdefault("SPGLIB_WARNING", "OFF")  # that no group is found at a tolerance is a result here, not a warning

SYMPREC = 0.1  # Å, the paper's tolerance after relaxation
ANGLE_TOLERANCE = 10.0  # degrees, the same
REPORTED = 0.01  # Å, the tolerance at which the group of a polished crystal is stated, see `model.relaxation.polish`
EXACT = 1e-3  # Å, the tolerance at which a symmetrised crystal must show its space group
FORBIDDEN = 1e6  # Å², the cost of pairing different elements


@dataclass(frozen=True)
class SpaceGroup:
    """A space group and the tolerances at which it was found.

    Attributes:
        number: 1 to 230.
        symbol: international short symbol, for example ``R-3m``.
        symprec: distance tolerance in Å.
        angle: angle tolerance in degrees.
    """

    number: int
    symbol: str
    symprec: float
    angle: float

    def __str__(self) -> str:
        return f"{self.symbol} ({self.number})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Refined:
    """A crystal moved onto a space group.

    Attributes:
        crystal: standardised primitive cell.
        parent: the same crystal in the cell and atom order that was given.
        space_group: the group that ``parent`` has exactly, with the tolerances at which it was looked for.
        displacement: Å, largest displacement of an atom, without the common shift and the homogeneous strain.
        strain: largest relative change of length of the cell in any direction.
        dataset: spglib's, of ``parent``; it holds the conventional cell.
    """

    crystal: Crystal
    parent: Crystal
    space_group: SpaceGroup
    displacement: float
    strain: float
    dataset: Any

    @property
    def cell_ratio(self) -> int:
        """Primitive cells in the cell that was given."""
        return len(self.parent) // len(self.crystal)


def space_group(
    crystal: Crystal, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE
) -> SpaceGroup | None:
    """Find the space group; None if spglib finds none at this tolerance (if atoms are closer than that, for example).

    Args:
        crystal: with at least one atom.
        symprec: distance tolerance in Å.
        angle_tolerance: degrees; negative to let spglib derive it from ``symprec``.

    Example:
        >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.501, 0.5, 0.5]], [11, 17])
        >>> print(space_group(salt), space_group(salt, 1e-3))
        Fm-3m (225) Imm2 (44)
    """
    dataset = symmetry_dataset(crystal, symprec, angle_tolerance)
    return None if dataset is None else SpaceGroup(dataset.number, dataset.international, symprec, angle_tolerance)


def operation_count(crystal: Crystal, symprec: float) -> int:
    """Symmetry operations in the given cell, lattice translations of the primitive cell included; at least 1."""
    dataset = symmetry_dataset(crystal, symprec, -1.0)
    return 1 if dataset is None else len(dataset.rotations)


def refine(crystal: Crystal, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE) -> Refined | None:
    """Move a crystal onto the space group that spglib finds at this tolerance.

    Positions and metric are averaged over the operations in the cell that was given, so that every atom keeps its
    number and its displacement can be measured; only then is the cell made primitive and standard.

    Returns:
        None if spglib finds no group, or if its operations do not permute the atoms one to one.
    """
    dataset = symmetry_dataset(crystal, symprec, angle_tolerance)
    return None if dataset is None else refine_onto(crystal, dataset, symprec, angle_tolerance)


def refine_onto(crystal: Crystal, dataset: Any, symprec: float, angle_tolerance: float) -> Refined | None:
    """As `refine`, onto the group in the `symmetry_dataset` of these tolerances."""
    parent = _symmetrised(crystal, dataset.rotations, dataset.translations)
    exact = None if parent is None else symmetry_dataset(parent, EXACT, -1.0)
    if parent is None or exact is None or len(exact.rotations) < len(dataset.rotations):
        return None
    primitive = _primitive(parent)
    if primitive is None or len(parent) % len(primitive):
        return None
    return Refined(
        crystal=primitive,
        parent=parent,
        space_group=SpaceGroup(exact.number, exact.international, symprec, angle_tolerance),
        displacement=_displacement(crystal, parent),
        strain=_strain(crystal, parent),
        dataset=exact,
    )


def symmetrised(crystal: Crystal, symprec: float) -> Crystal | None:
    """The crystal moved onto the group that it has within ``symprec`` Å, in the cell and atom order given.

    Returns:
        None if spglib finds no group, or if its operations do not permute the atoms one to one.
    """
    dataset = symmetry_dataset(crystal, symprec, -1.0)
    return None if dataset is None else _symmetrised(crystal, dataset.rotations, dataset.translations)


Operations = list[tuple[np.ndarray, np.ndarray]]


def onto_group(crystal: Crystal, symprec: float) -> tuple[Crystal, Operations] | None:
    """The crystal moved onto the group that it has within ``symprec`` Å, and the operations of that group.

    Returns:
        the crystal in the cell and atom order given; and for each operation, lattice translations of the primitive
        cell included, its rotation (3, 3) of Cartesian rows and (n,) the atom that each atom is mapped to. None where
        there is only the identity, or where the operations do not permute the atoms one to one.
    """
    dataset = symmetry_dataset(crystal, symprec, -1.0)
    if dataset is None or len(dataset.rotations) < 2:
        return None
    parent = _symmetrised(crystal, dataset.rotations, dataset.translations)
    if parent is None:
        return None
    inverse, found = np.linalg.inv(parent.lattice), []
    for rotation, translation in zip(dataset.rotations, dataset.translations, strict=True):
        target = site_permutation(parent, rotation, translation)
        if target is None:
            return None
        found.append((inverse @ rotation.T @ parent.lattice, target))
    return parent, found


def fractional_operations(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (G, 3, 3), translations (G, 3) of fractional columns, x → R x + t; none where spglib finds no group."""
    dataset = symmetry_dataset(crystal, EXACT, -1.0)
    return (np.empty((0, 3, 3)), np.empty((0, 3))) if dataset is None else (dataset.rotations, dataset.translations)


def site_permutation(crystal: Crystal, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray | None:
    """(n,) atom that x → R x + t maps each atom to, within `EXACT`; None if that is not one to one."""
    step = (crystal.fractional @ rotation.T + translation)[:, None] - crystal.fractional[None]
    square = np.square(rounded_steps(step) @ crystal.lattice).sum(-1)
    target = _pairing(square, crystal.numbers)
    if target is None or square[np.arange(len(target)), target].max() > EXACT**2:
        return None
    return target


def nearest_alike(
    lattice: np.ndarray, fractional: np.ndarray, kinds: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """(n,) the site of the same kind (n,) that lies nearest to where x → R x + t brings each site."""
    distance = rounded_lengths((fractional @ rotation.T + translation)[:, None] - fractional, lattice)
    nearest: np.ndarray = np.where(kinds[:, None] == kinds, distance, np.inf).argmin(1)
    return nearest


def generic_dataset(lattice: np.ndarray, rotations: np.ndarray, translations: np.ndarray) -> Any:
    """spglib's dataset of points with exactly these operations; None where the lattice (rows, Å) does not allow them.

    It has the type of the space group, and the transformation from this cell to the standard one.
    """
    for seed in range(10):  # an orbit may, by accident, have more symmetry or points that fall together
        points = np.random.default_rng(seed).random((2, 3))
        orbits = (points @ rotations.transpose(0, 2, 1) + translations[:, None]).reshape(-1, 3)
        generic = Crystal(lattice, orbits, np.tile([1, 2], len(rotations)))
        dataset = symmetry_dataset(generic, EXACT / 10, -1.0)
        if dataset is not None and len(dataset.rotations) == len(rotations):
            return dataset
    return None


def _cell(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return crystal.lattice, crystal.fractional, crystal.numbers


def symmetry_dataset(crystal: Crystal, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE) -> Any:
    """spglib's dataset, with the group's number, rotations and translations; None if it finds no group."""
    if len(crystal) == 0:
        raise ValueError("a crystal without atoms has no space group")
    return _call(spglib.get_symmetry_dataset, crystal, symprec=symprec, angle_tolerance=angle_tolerance)


def _primitive(crystal: Crystal) -> Crystal | None:
    cell = _call(spglib.standardize_cell, crystal, to_primitive=True, no_idealize=False, symprec=EXACT)
    return None if cell is None else Crystal(*cell).wrapped()


def _call(function: Any, crystal: Crystal, **options: Any) -> Any:
    """Call spglib; a failure is None, whether the installed version returns None or raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Set OLD_ERROR_HANDLING", category=DeprecationWarning)
        try:
            return function(_cell(crystal), **options)
        except spglib.SpglibError:
            return None


def _symmetrised(crystal: Crystal, rotations: np.ndarray, translations: np.ndarray) -> Crystal | None:
    """Average metric and positions over the operations x -> R x + t; None if atoms cannot be paired."""
    metric = rotations.transpose(0, 2, 1) @ (crystal.lattice @ crystal.lattice.T) @ rotations
    lattice = _closest_lattice(metric.mean(0), crystal.lattice)
    fractional = crystal.fractional
    for _ in range(5):  # the pairing of atoms can improve once they have moved
        averaged = _averaged(fractional, lattice, crystal.numbers, rotations, translations)
        if averaged is None:
            return None
        moved = np.abs(averaged - fractional).max()
        fractional = averaged
        if moved < 1e-9:
            break
    return crystal.replace(lattice=lattice, fractional=fractional)


def _averaged(
    fractional: np.ndarray, lattice: np.ndarray, numbers: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> np.ndarray | None:
    reduced, _ = minkowski_reduce(lattice)  # where rounding serves for the longest steps
    total = np.zeros_like(fractional)
    for rotation, translation in zip(rotations, translations, strict=True):
        image = fractional @ rotation.T + translation
        step = rounded_steps((image[:, None] - fractional[None]) @ (lattice @ np.linalg.inv(reduced))) @ reduced
        target = _pairing(np.square(step).sum(-1), numbers)
        if target is None:
            return None
        total[target] += step[np.arange(len(target)), target]
    return fractional + total @ np.linalg.inv(lattice) / len(rotations)


def _pairing(square: np.ndarray, numbers: np.ndarray) -> np.ndarray | None:
    """For each image (row) the atom (column) it falls on: one to one, same element, least squared distance."""
    cost = np.where(numbers[:, None] == numbers[None], square, FORBIDDEN)
    nearest = cost.argmin(1)
    if len(np.unique(nearest)) == len(nearest):
        return nearest
    rows, columns = linear_sum_assignment(cost)
    return columns if cost[rows, columns].max() < FORBIDDEN else None


def _closest_lattice(metric: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """The lattice of a given metric (rows·rowsᵀ) in the orientation closest to ``lattice`` (orthogonal Procrustes)."""
    rows = np.linalg.cholesky(metric)
    left, _, right = np.linalg.svd(rows.T @ lattice)
    return rows @ left @ right


def _displacement(before: Crystal, after: Crystal) -> float:
    cartesian = (after.fractional - before.fractional) @ after.lattice
    return float(np.linalg.norm(cartesian - cartesian.mean(0), axis=1).max())


def _strain(before: Crystal, after: Crystal) -> float:
    stretch = np.linalg.svd(np.linalg.solve(before.lattice, after.lattice), compute_uv=False)
    return float(np.abs(stretch - 1).max())
