"""Relax many crystals at once: ASE's FIRE with its Fréchet cell filter, and a limited-memory BFGS.

Coordinates are ASE's ``FrechetCellFilter`` (one crystal of n atoms has n + 3 rows): the atoms' positions in the
undeformed cell (Å), and n times the logarithm of the deformation gradient F, with ``lattice = lattice₀ Fᵀ``. The
generalised forces (eV/Å) are the negative gradient in these coordinates, so the last three rows are about
``volume/n`` times the stress. A relaxation has converged when the longest of all n + 3 rows is shorter than ``fmax``,
as in ASE and in ``chgnet.StructOptimizer``. L-BFGS goes on while the energy still falls by more than `SETTLED` in
`LOOK_BACK` steps: it would stay where forces are small on the way down a soft mode, where FIRE's inertia carries on.

What may not change (the volume, the shape, the cell, atoms, the space group) is projected out of these forces, so that
the optimizers never see it.

All crystals of a batch step together, each with its own state; those that finish leave and others take their place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from ase.units import GPa
from pydantic import Field
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import broken_cells, undirected_bonds
from model.potentials.interface import BatchEvaluation, Potential
from model.relaxation.optimizers import OPTIMIZERS, longest_row
from model.relaxation.state import LOOK_BACK, Running, join, keep
from model.settings import Settings
from model.symmetry.projector import Projector, symmetric_start

REASONS = (
    "converged",
    "step_limit",
    "wall_time",
    "hopeless",
    "not_promising",
    "volume_runaway",
    "energy_runaway",
    "fused_atoms",
    "nan",
    "no_atoms",
    "not_started",
)
FALL_AHEAD = 3.0  # times its fall in the last LOOK_BACK steps that an energy may still fall
SETTLED = 2e-3  # eV/atom in the last LOOK_BACK steps of L-BFGS; a larger fall is no end yet
FARTHEST = 1e6  # Å or cells; beyond it double precision places no atom
Cell = Literal["full", "hydrostatic", "fixed_volume", "fixed"]


class RelaxSettings(Settings):
    """How to relax."""

    optimizer: Literal["fire", "lbfgs"] = "fire"  # ASE's FIRE, as the papers use it, or the faster L-BFGS
    fmax: float = Field(0.1, gt=0)  # eV/Å, longest row of forces and scaled stress at convergence
    max_steps: int = Field(500, ge=0)  # as ASE counts them
    cell: Cell = "full"  # all of the lattice relaxes, its size only, its shape only, or nothing of it
    pressure: float = Field(0.0, allow_inf_nan=False)  # GPa, external
    keep_symmetry: bool = False  # hold every crystal on the space group that it has at the start, for less work
    symprec: float = Field(0.01, gt=0)  # Å, tolerance of that space group
    max_seconds: float = Field(600.0, ge=0)  # wall time of a crystal in its batch, whatever the others need
    max_volume_change: float = Field(3.0, gt=1)  # factor by which the volume may grow or shrink
    max_energy_rise: float = Field(5.0, gt=0)  # eV/atom from the start, beyond which the potential is not believed
    max_energy_fall: float = Field(100.0, gt=0)  # the same, downwards
    min_distance: float = Field(0.5, ge=0)  # Å, closer atoms are fused and end a relaxation
    hopeless: float | None = Field(None, gt=0)  # eV/atom above the lowest of its composition; see `relax`
    share: float = Field(1.0, gt=0, le=1)  # of the crystals of a composition, relaxed in full; for `candidate_funnel`
    guest_steps: int = Field(20, ge=0)  # of the guests alone, before that choice; for `candidate_funnel`


@dataclass(frozen=True, eq=False)
class Relaxation:
    """One relaxed crystal. Where the potential failed (reasons nan, fused_atoms), ``final`` may be ``initial`` again.

    Attributes:
        initial, final: before and after; with ``keep_symmetry`` the initial crystal has been moved onto its group.
        energy_initial, energy_final: eV/atom of exactly these two crystals.
        forces_final: (n, 3) eV/Å at ``final``, atoms that were held fixed included.
        max_force_initial, max_force: eV/Å, longest row of forces and scaled stress; fixed atoms do not count.
        pressure: GPa at ``final``, positive where the crystal wants to grow.
        steps: optimizer steps taken.
        converged: whether ``max_force`` fell below fmax with no atoms fused and, with L-BFGS, the energy settled.
        reason: one of `REASONS`.
        detail: what the potential said where it failed.
        seconds: wall time in the batch.
        orbits: atoms that a step had to compute; with ``keep_symmetry`` one of each orbit.
    """

    initial: Crystal
    final: Crystal
    energy_initial: float
    energy_final: float
    forces_final: np.ndarray
    max_force_initial: float
    max_force: float
    pressure: float
    steps: int
    converged: bool
    reason: str
    detail: str = ""
    seconds: float = 0.0
    orbits: int = 0


def usable(outcome: Relaxation) -> bool:
    """Whether the final structure and its energy mean something, converged or not."""
    return outcome.reason in ("converged", "step_limit", "wall_time", "hopeless", "not_promising")


def relax(
    crystals: Sequence[Crystal],
    potential: Potential,
    settings: RelaxSettings | None = None,
    *,
    free: Sequence[np.ndarray | None] | None = None,
    batch_size: int = 32,
    max_seconds: float = math.inf,
    known: Mapping[str, float] | None = None,
    report: Callable[[int, Relaxation], None] = lambda index, result: None,
) -> list[Relaxation]:
    """Relax crystals in the order given; a crystal that fails has a reason instead of raising.

    With ``settings.hopeless`` a crystal ends early when its energy, less three times what it fell in the last five
    steps, still lies that much above the lowest energy of its composition: that of ``known``, or of a crystal of this
    call that has converged.

    Args:
        crystals: of any size.
        potential: gives energies, forces and stresses.
        settings: see `RelaxSettings`.
        free: per crystal a boolean (n,) of the atoms that may move, or None for all. Fixed atoms keep their
            fractional coordinates.
        batch_size: crystals that step together.
        max_seconds: wall time for all of them; then those that run end with ``wall_time``, and those that wait with
            ``not_started``.
        known: reduced formula -> eV/atom, the lowest energy so far; only read with ``settings.hopeless``.
        report: called with the index and the result of each crystal as soon as it is done.
    """
    settings = settings or RelaxSettings()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    masks = [_free_mask(crystal, mask) for crystal, mask in zip(crystals, free or [None] * len(crystals), strict=True)]
    job = _Job(list(crystals), masks, potential, settings, time.perf_counter() + max_seconds, report)
    job.lowest.update(known or {})
    waiting = iter(range(len(crystals)))
    running: Running | None = None
    while True:
        room = batch_size - (len(running.steps) if running else 0)
        fresh = _next_filled(waiting, room, job)
        if fresh:
            entering = _enter(fresh, job)
            running = entering if running is None else join(running, entering)
        if running is None or not len(running.steps):
            return [job.results[i] for i in range(len(crystals))]
        running = _advance(running, job)


@dataclass(frozen=True, eq=False)
class _Job:
    """What a call of `relax` was given, and what has come of it; lists and dictionaries are by index of the crystal."""

    crystals: list[Crystal]
    masks: list[np.ndarray]
    potential: Potential
    settings: RelaxSettings
    deadline: float
    tell: Callable[[int, Relaxation], None]
    projectors: dict[int, Projector] = field(default_factory=dict)
    results: dict[int, Relaxation] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict)  # by reduced formula, eV/atom

    def finish(self, index: int, result: Relaxation) -> None:
        if result.converged:
            formula = result.initial.formula
            self.lowest[formula] = min(result.energy_final, self.lowest.get(formula, math.inf))
        self.results[index] = result
        self.tell(index, result)


def _free_mask(crystal: Crystal, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        return np.ones(len(crystal), dtype=bool)
    mask = np.asarray(mask)
    if mask.shape != (len(crystal),) or mask.dtype != bool:
        raise ValueError(f"free must be boolean of shape ({len(crystal)},), got {mask.dtype} of shape {mask.shape}")
    return mask


def _next_filled(waiting: Iterator[int], room: int, job: _Job) -> list[int]:
    """The next crystals that can start; the others get their result at once."""
    filled: list[int] = []
    while len(filled) < room and (i := next(waiting, None)) is not None:
        if not len(job.crystals[i]):
            job.finish(i, _stillborn(job.crystals[i], "no_atoms"))
        elif not _within(job.crystals[i], FARTHEST):
            detail = f"a coordinate or cell vector is not finite, or beyond {FARTHEST:g}"
            job.finish(i, _stillborn(job.crystals[i], "nan", detail))
        elif time.perf_counter() > job.deadline:
            job.finish(i, _stillborn(job.crystals[i], "not_started"))
        else:
            filled.append(i)
    return filled


def _within(crystal: Crystal, limit: float) -> bool:
    """Whether all coordinates and cell vectors are numbers within the limit."""
    return all(bool((np.abs(values) < limit).all()) for values in (crystal.lattice, crystal.fractional))


def _stillborn(crystal: Crystal, reason: str, detail: str = "") -> Relaxation:
    nan = float("nan")
    forces = np.full((len(crystal), 3), nan)
    return Relaxation(crystal, crystal, nan, nan, forces, nan, nan, nan, 0, False, reason, detail)


def _enter(indices: list[int], job: _Job) -> Running:
    """Crystals before their first step."""
    device, settings = job.potential.device, job.settings
    if settings.keep_symmetry:
        for i in indices:
            symmetric, projector = symmetric_start(
                job.crystals[i], job.masks[i], symprec=settings.symprec, device=device
            )
            if projector is not None:
                job.crystals[i], job.projectors[i] = symmetric, projector
    chosen = [job.crystals[i] for i in indices]
    cell_moves = settings.cell != "fixed"
    zero = np.zeros((3, 3))
    rows = np.concatenate([part for crystal in chosen for part in (crystal.cartesian, zero)])
    is_atom = np.concatenate([np.arange(len(crystal) + 3) < len(crystal) for crystal in chosen])
    moves = np.concatenate([part for i in indices for part in (job.masks[i], [cell_moves] * 3)])
    numbers = np.concatenate([part for crystal in chosen for part in (crystal.numbers, [0, 0, 0])])
    nan = torch.full((len(chosen),), torch.nan, dtype=torch.float64, device=device)
    return Running(
        row_position=torch.from_numpy(rows).to(device),
        row_is_atom=torch.from_numpy(is_atom).to(device),
        row_moves=torch.from_numpy(moves).to(device),
        row_number=torch.from_numpy(numbers).to(device),
        index=torch.tensor(indices, device=device),
        counts=torch.tensor([len(crystal) for crystal in chosen], device=device),
        origin=torch.from_numpy(np.stack([crystal.lattice for crystal in chosen])).to(device),
        energy_initial=nan,
        force_initial=nan,
        energies=nan[:, None].expand(-1, LOOK_BACK),
        steps=torch.zeros(len(chosen), dtype=torch.int64, device=device),
        entered=torch.full_like(nan, time.perf_counter()),
        optimizer=OPTIMIZERS[settings.optimizer](len(rows), len(chosen), device),
    )


def _advance(running: Running, job: _Job) -> Running:
    """Evaluate all, hand out the results of those that are done, move the others one step."""
    settings = job.settings
    deformation = running.deformation()
    batch = running.batch(deformation)
    projectors = [job.projectors.get(index) for index in running.index.tolist()]
    evaluation = job.potential.compute(batch, projectors)
    forces = generalised_forces(running, batch, evaluation, deformation, settings)
    for place, projector in enumerate(projectors):
        if projector is not None:
            _project_(forces, running.owner == place, running.row_is_atom, projector)
    force = longest_row(forces, running.owner, len(batch))
    fresh = running.steps == 0
    running = replace(
        running,
        energy_initial=torch.where(fresh, evaluation.energy, running.energy_initial),
        force_initial=torch.where(fresh, force, running.force_initial),
    )
    reasons = _reasons(running, batch, evaluation, force, job)
    for i, reason in enumerate(reasons):
        if reason:
            _report(i, reason, running, batch, evaluation, force, job)
    stay = torch.tensor([not reason for reason in reasons], device=batch.counts.device)
    rows = stay[running.owner]
    enthalpy = (evaluation.energy * batch.counts + settings.pressure * GPa * _volume(batch.lattice))[stay]
    forces = forces[rows]
    if not stay.all():
        running = keep(running, stay, rows)
    if not len(running.steps):
        return running
    move, optimizer = running.optimizer.step(forces, enthalpy, running.owner, running.row_is_atom)
    return replace(
        running,
        row_position=running.row_position + move,
        energies=torch.cat([evaluation.energy[stay, None], running.energies[:, :-1]], 1),
        steps=running.steps + 1,
        optimizer=optimizer,
    )


def generalised_forces(
    running: Running, batch: Batch, evaluation: BatchEvaluation, deformation: Tensor, settings: RelaxSettings
) -> Tensor:
    """(R, 3) eV/Å: forces in the undeformed cell, then the force on n log F, as ``ase.filters.FrechetCellFilter``."""
    rows = torch.zeros_like(running.row_position)
    rows[running.row_is_atom] = torch.einsum("ni,nij->nj", evaluation.forces, deformation[batch.owner])
    if settings.cell != "fixed":
        pressure = settings.pressure * GPa * torch.eye(3, dtype=rows.dtype, device=rows.device)
        virial = -_volume(batch.lattice)[:, None, None] * (evaluation.stress + pressure)
        if settings.cell == "hydrostatic":
            virial = _isotropic(virial)
        logarithm = running.row_position[~running.row_is_atom].view(-1, 3, 3) / batch.counts[:, None, None]
        force = _frechet(logarithm.mT, virial @ torch.linalg.inv_ex(deformation.mT).inverse)
        if settings.cell == "fixed_volume":
            force = force - _isotropic(force)
        rows[~running.row_is_atom] = (force / batch.counts[:, None, None]).view(-1, 3)
    return rows * running.row_moves[:, None]


def _isotropic(tensors: Tensor) -> Tensor:
    """(B, 3, 3) a third of each trace times the identity."""
    third = tensors.diagonal(dim1=-2, dim2=-1).mean(-1)
    return third[:, None, None] * torch.eye(3, dtype=tensors.dtype, device=tensors.device)


def _project_(forces: Tensor, mine: Tensor, is_atom: Tensor, projector: Projector) -> None:
    """Put one crystal's rows of ``forces`` (R, 3) onto those that keep its space group."""
    forces[mine & is_atom] = projector.atoms(forces[mine & is_atom])
    forces[mine & ~is_atom] = projector.cell(forces[mine & ~is_atom])


def _frechet(matrix: Tensor, direction: Tensor) -> Tensor:
    """Derivative of exp at ``matrix`` along ``direction`` (Higham, Functions of Matrices, eq. 3.16)."""
    block = torch.cat([torch.cat([matrix, direction], -1), torch.cat([torch.zeros_like(matrix), matrix], -1)], -2)
    return torch.linalg.matrix_exp(block)[..., :3, 3:]


def fused_atoms(batch: Batch, distance: float) -> Tensor:
    """(B,) whether two atoms are closer than ``distance`` Å; a crystal that has no neighbour list is not."""
    sound = ~torch.stack(list(broken_cells(batch, distance).values())).any(0)
    fused = torch.zeros_like(sound)
    if sound.any():
        part = batch.select(sound)
        hit = torch.bincount(part.owner[undirected_bonds(part, distance).center], minlength=len(part))
        fused[sound] = hit > 0
    return fused


def _volume(lattice: Tensor) -> Tensor:
    return torch.linalg.det(lattice).abs()


def _reasons(running: Running, batch: Batch, evaluation: BatchEvaluation, force: Tensor, job: _Job) -> list[str]:
    """Per crystal, why it is done, or an empty string."""
    settings, now = job.settings, time.perf_counter()
    failed = torch.tensor([bool(problem) for problem in evaluation.problems], device=force.device)
    growth = _volume(batch.lattice) / _volume(running.origin)
    rise = evaluation.energy - running.energy_initial
    tests = {
        "fused_atoms": fused_atoms(batch, settings.min_distance),
        "nan": failed | ~torch.isfinite(force),
        "volume_runaway": (growth > settings.max_volume_change) | (growth < 1 / settings.max_volume_change),
        "energy_runaway": (rise > settings.max_energy_rise) | (rise < -settings.max_energy_fall),
        "converged": (force < settings.fmax) & _settled(running, evaluation.energy, settings),
        "step_limit": running.steps >= settings.max_steps,
        "hopeless": _hopeless(running, evaluation.energy, job),
        "wall_time": (now - running.entered > settings.max_seconds) | (now > job.deadline),
    }
    columns = zip(*(test.tolist() for test in tests.values()), strict=True)
    return [next((name for name, hit in zip(tests, row, strict=True) if hit), "") for row in columns]


def _settled(running: Running, energy: Tensor, settings: RelaxSettings) -> Tensor:
    """(B,) whether small forces are the end; so they are, too, in the first steps and with FIRE."""
    if settings.optimizer == "fire":
        return torch.ones_like(energy, dtype=torch.bool)
    return ~(running.energies[:, -1] - energy > SETTLED)


def _hopeless(running: Running, energy: Tensor, job: _Job) -> Tensor:
    """(B,) whether a crystal will hardly come near the lowest of its composition."""
    if job.settings.hopeless is None:
        return torch.zeros_like(energy, dtype=torch.bool)
    lowest = [job.lowest.get(job.crystals[i].formula, math.inf) for i in running.index.tolist()]
    expected = energy - FALL_AHEAD * (running.energies[:, -1] - energy).clamp_min(0)
    return expected > torch.tensor(lowest, dtype=energy.dtype, device=energy.device) + job.settings.hopeless


def _report(
    i: int, reason: str, running: Running, batch: Batch, evaluation: BatchEvaluation, force: Tensor, job: _Job
) -> None:
    """Write the result of crystal i of the batch."""
    index = int(running.index[i])
    initial = job.crystals[index]
    seconds = time.perf_counter() - float(running.entered[i])
    before, force_before = float(running.energy_initial[i]), float(running.force_initial[i])
    steps = int(running.steps[i])
    atoms = batch.owner == i
    forces = evaluation.forces[atoms].cpu().numpy()
    projector = job.projectors.get(index)
    orbits = projector.orbits if projector else len(initial)
    if reason == "nan" or evaluation.problems[i]:
        forces = np.full_like(forces, np.nan)
        failed = Relaxation(
            initial,
            initial,
            before,
            before,
            forces,
            force_before,
            force_before,
            float("nan"),
            steps,
            False,
            reason,
            evaluation.problems[i],
            seconds,
            orbits,
        )
        job.finish(index, failed)
        return
    lattice, positions = batch.lattice[i].cpu().numpy(), batch.positions[atoms].cpu().numpy()
    final = initial if steps == 0 else initial.replace(lattice=lattice, fractional=positions @ np.linalg.inv(lattice))
    pressure = -float(evaluation.stress[i].diagonal().mean()) / GPa
    done = Relaxation(
        initial,
        final,
        before,
        float(evaluation.energy[i]),
        forces,
        force_before,
        float(force[i]),
        pressure,
        steps,
        reason == "converged",
        reason,
        "",
        seconds,
        orbits,
    )
    job.finish(index, done)
