"""Phonons by finite displacements: whether a crystal is a minimum of the energy, its bands and density of states.

phonopy (A. Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)) finds the displacements that symmetry leaves, and makes the
force constants; the project's potentials give the forces, of several supercells at a time. Frequencies are in THz;
imaginary ones are negative numbers. Whether a crystal is a minimum is decided at the wave vectors that the supercell
holds, where nothing is interpolated.

A screen and no proof: machine-learned potentials are softer than DFT (B. Deng et al., npj Comput. Mater. 11, 9 (2025)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.cell import Cell
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.structure.atoms import PhonopyAtoms

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import cells_across
from model.potentials.interface import Evaluation, Potential
from model.relaxation.relax import RelaxSettings, relax
from model.symmetry.space_group import EXACT, REPORTED, refine, symmetry_dataset
from model.verification.settings import PhononSettings

BAND_POINTS = 12  # wave vectors per 0.1 Å⁻¹ of path (without 2π)
MESH = 30.0  # Å, length that sets the mesh of the density of states, as in phonopy
AT_ONCE = 2000  # atoms of supercells that are evaluated together
SAME = 1e-2  # THz, within which the frequencies at two wave vectors are equal, as those of one star are


@dataclass(frozen=True, eq=False, kw_only=True)
class Bands:
    """Frequencies along a path between special points.

    Attributes:
        places: (m,) distance along the path.
        frequencies: (m, 3n) THz.
        ticks: places of the special points.
        labels: their names.
    """

    places: np.ndarray
    frequencies: np.ndarray
    ticks: tuple[float, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Mode:
    """The lowest mode at a wave vector of the supercell.

    Attributes:
        frequency: THz.
        wave_vector: (3,) in reciprocal vectors of the crystal.
    """

    frequency: float
    wave_vector: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Phonons:
    """The phonons of a crystal.

    Attributes:
        crystal: relaxed, the primitive cell.
        energy: eV/atom.
        supercell: (3, 3) integers; its rows are the supercell in the crystal's vectors.
        displacements: number of displaced supercells.
        modes: the lowest modes at the wave vectors of the supercell, one of each star, lowest first; translations of
            the whole crystal left out.
        bands: along ASE's path.
        dos_frequencies, dos: (k,) THz, and states per THz and cell.
        tolerance: THz; a frequency below minus this is imaginary.
        force_constants: (p, s, 3, 3) eV/Å² between atoms of the primitive cell and of the supercell.
    """

    crystal: Crystal
    energy: float
    supercell: np.ndarray
    displacements: int
    modes: tuple[Mode, ...]
    bands: Bands
    dos_frequencies: np.ndarray
    dos: np.ndarray
    tolerance: float
    force_constants: np.ndarray

    @property
    def lowest(self) -> float:
        """THz, lowest frequency at the wave vectors of the supercell."""
        return self.modes[0].frequency

    @property
    def imaginary(self) -> tuple[Mode, ...]:
        """The modes along which the energy falls."""
        return tuple(mode for mode in self.modes if mode.frequency < -self.tolerance)

    @property
    def interpolated(self) -> float:
        """THz, lowest frequency on the path, between the wave vectors of the supercell."""
        return float(self.bands.frequencies.min())

    def frequencies(self, wave_vectors: Sequence[Sequence[float]]) -> np.ndarray:
        """(q, 3n) THz at wave vectors in reciprocal vectors of the crystal, ascending."""
        return _frequencies(self.solver(), np.asarray(wave_vectors, dtype=float))

    def solver(self) -> Phonopy:
        """The same as phonopy's object."""
        solver = _solver(self.crystal, self.supercell)
        solver.force_constants = self.force_constants
        return solver


class NoPhonons(ValueError):
    """Why the phonons of a crystal cannot be computed."""


def phonons(crystal: Crystal, potential: Potential, settings: PhononSettings | None = None) -> Phonons:
    """Compute the phonons of a crystal.

    The crystal is moved onto the space group that it has within 0.01 Å and relaxed there, since frequencies mean
    something only where no force is left.

    Args:
        crystal: of any cell; its primitive one is used.
        potential: gives the forces.
        settings: see `PhononSettings`.

    Raises:
        NoPhonons: it cannot be relaxed, the potential fails, or the supercell would be too large.
    """
    settings = settings or PhononSettings()
    refined = refine(crystal, REPORTED, -1.0)
    rest = RelaxSettings(fmax=settings.fmax, max_steps=settings.max_steps, keep_symmetry=True, symprec=EXACT)
    (relaxed,) = relax([refined.crystal if refined else crystal], potential, rest)
    if not relaxed.converged:
        raise NoPhonons(f"the crystal does not relax to {settings.fmax:g} eV/Å: {relaxed.detail or relaxed.reason}")
    primitive = relaxed.final
    matrix = supercell_matrix(primitive, settings.height)
    atoms = round(abs(np.linalg.det(matrix))) * len(primitive)
    if atoms > settings.max_atoms:
        raise NoPhonons(f"a supercell of {settings.height:g} Å has {atoms} atoms, more than {settings.max_atoms}")
    solver = _solver(primitive, matrix)
    solver.generate_displacements(distance=settings.displacement)
    displaced = [_crystal(one) for one in solver.supercells_with_displacements or ()]
    found = _evaluated([_crystal(solver.supercell), *displaced], potential)
    problem = next((one.problem for one in found if one.problem), "")
    if problem:
        raise NoPhonons(f"a supercell cannot be evaluated: {problem}")
    rest_forces = found[0].forces
    solver.forces = [one.forces - rest_forces for one in found[1:]]
    solver.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    solver.symmetrize_force_constants(show_drift=False)
    modes = _modes(solver, matrix)
    solver.run_mesh(MESH)
    density = solver.run_total_dos()
    return Phonons(
        crystal=primitive,
        energy=relaxed.energy_final,
        supercell=matrix,
        displacements=len(displaced),
        modes=modes,
        bands=_bands(solver, primitive),
        dos_frequencies=np.array(density.frequency_points),
        dos=np.array(density.dos),
        tolerance=settings.imaginary,
        force_constants=np.array(solver.force_constants),
    )


def _evaluated(crystals: Sequence[Crystal], potential: Potential) -> list[Evaluation]:
    """The supercells a few at a time, since there may be a hundred of hundreds of atoms."""
    at_once = max(1, AT_ONCE // len(crystals[0]))
    starts = range(0, len(crystals), at_once)
    return [one for start in starts for one in potential.evaluate(crystals[start : start + at_once])]


def supercell_matrix(crystal: Crystal, height: float) -> np.ndarray:
    """(3, 3) integers: the smaller of two supercells with at least this distance (Å) between opposite faces.

    One repeats the crystal's cell, the other the conventional cell of its space group, as often as needed: once, or an
    even number of times, so that the supercell holds the zone boundary, where most distortions lie.

    >>> from ase.build import bulk
    >>> supercell_matrix(Crystal.from_ase(bulk("Si")), 8).tolist()
    [[-2, 2, 2], [2, -2, 2], [2, 2, -2]]
    """
    choices = [np.eye(3)]
    dataset = symmetry_dataset(crystal, EXACT, -1.0)
    if dataset is not None:
        choices.append(np.linalg.inv(dataset.transformation_matrix.T))
    found = []
    for cell in choices:
        needed = np.maximum(np.ceil(cells_across(cell @ crystal.lattice, height) - 1e-6).astype(int), 1)
        repeats = np.where(needed == 1, 1, needed + needed % 2)
        found.append(np.rint(repeats[:, None] * cell).astype(int))
    return min(found, key=lambda matrix: abs(np.linalg.det(matrix)))


def mode_displacements(found: Phonons, mode: Mode) -> tuple[Crystal, np.ndarray]:
    """A mode in the smallest supercell that holds its wave vector.

    Returns:
        the supercell at rest, and (n, 3) displacements in Å, the largest of length 1.
    """
    matrix = cells_of_wave(mode.wave_vector, found.crystal.lattice)
    modulated = found.solver().run_modulations(matrix.T, [[mode.wave_vector, 0, 1.0, 0.0]])
    moves = modulated.modulations[0]
    best = max((np.real(moves * np.exp(1j * phase)) for phase in (0.0, np.pi / 2)), key=np.linalg.norm)
    return _crystal(modulated.supercell), best / np.linalg.norm(best, axis=1).max()


def cells_of_wave(wave_vector: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """(3, 3) integers: the smallest supercell that holds a wave, its rows as short as can be.

    Args:
        wave_vector: (3,) fractions of whole numbers, in reciprocal vectors.
        lattice: (3, 3) rows, Å.

    >>> cells_of_wave(np.array([0.5, 0.5, 0.5]), np.eye(3)).tolist()
    [[1, 1, 0], [1, 0, 1], [1, 0, -1]]
    """
    count = next(n for n in range(1, 1000) if (np.abs(n * wave_vector - np.rint(n * wave_vector)) < 1e-6).all())
    wave = np.rint(count * wave_vector).astype(int)
    side = np.arange(-count, count + 1)
    steps = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    steps = steps[(steps @ wave % count == 0) & steps.any(1)]
    steps = steps[np.argsort(np.linalg.norm(steps @ lattice, axis=1).round(6), kind="stable")]
    first = steps[0]
    second = next(step for step in steps if np.cross(first, step).any())
    third = next(step for step in steps if round(abs(np.linalg.det([first, second, step]))) == count)
    cells = np.array([first, second, third])
    return cells if np.linalg.det(cells) > 0 else -cells


def _solver(crystal: Crystal, matrix: np.ndarray) -> Phonopy:
    cell = PhonopyAtoms(numbers=crystal.numbers, cell=crystal.lattice, scaled_positions=crystal.fractional)
    return Phonopy(cell, supercell_matrix=matrix.T, primitive_matrix="P", symprec=EXACT)  # its columns are vectors


def _crystal(cell: Any) -> Crystal:
    return Crystal(cell.cell, cell.scaled_positions, cell.numbers)


def _frequencies(solver: Phonopy, wave_vectors: np.ndarray) -> np.ndarray:
    frequencies: np.ndarray = np.array(solver.run_qpoints(wave_vectors).frequencies)
    return frequencies


def _modes(solver: Phonopy, matrix: np.ndarray) -> tuple[Mode, ...]:
    """The lowest mode at each star of the supercell's wave vectors; the three translations do not count."""
    points = get_commensurate_points(matrix.T)
    frequencies = _frequencies(solver, points)
    found: list[Mode] = []
    seen: list[np.ndarray] = []
    for point, own in zip(points, frequencies, strict=True):
        if any(np.abs(own - other).max() < SAME for other in seen):
            continue
        seen.append(own)
        at_zero = (np.abs(point - np.rint(point)) < 1e-6).all()
        counted = own[np.argsort(np.abs(own))[3:]] if at_zero else own
        if len(counted):
            found.append(Mode(frequency=float(counted.min()), wave_vector=point))
    return tuple(sorted(found, key=lambda mode: mode.frequency))


def _bands(solver: Phonopy, crystal: Crystal) -> Bands:
    path = Cell(crystal.lattice).bandpath(density=BAND_POINTS * 10 / (2 * np.pi))
    places, ticks, labels = path.get_linear_kpoint_axis()
    frequencies = _frequencies(solver, path.kpts)
    return Bands(places=places, frequencies=frequencies, ticks=tuple(ticks.tolist()), labels=tuple(labels))
