"""Relax many crystals at once: ASE's FIRE with its Fréchet cell filter, and a limited-memory BFGS.

The coordinates and the forces in them are those of `model.relaxation.coordinates`: one crystal of n atoms has n + 3
rows. A relaxation has converged when the longest of these rows of forces is shorter than ``fmax``, as in ASE and in
``chgnet.StructOptimizer``, and the crystal has settled. Small forces alone are also found on plateaus, for example
between layers that are still far apart. So the enthalpy may have fallen by no more than `ENERGY_SETTLED` and the volume
changed by no more than `VOLUME_SETTLED` in the last `HISTORY_STEPS` steps, both in proportion to ``fmax``, and the
enthalpy must not bend down along the last step.

What may not change (the volume, the shape, the cell, atoms, the space group) is projected out of the forces, so that
the optimizers never see it. All crystals of a batch step together, each with its own state; when one finishes, the next
takes its place.

The optimizers and the neighbour list are our own, because they must work on ragged batches and on one atom per orbit of
a space group, which no library offers together.
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
from model.reasons import Reason
from model.relaxation.coordinates import Cell, cell_volume, generalised_forces, project_
from model.relaxation.optimizers import OPTIMIZERS, longest_row
from model.relaxation.state import HISTORY_STEPS, Running, join, keep
from model.settings import Settings
from model.symmetry.projector import Projector, symmetric_start

RANKED = (  # reasons after which the energy of a crystal can be compared
    Reason.CONVERGED,
    Reason.STEP_LIMIT,
    Reason.WALL_TIME,
    Reason.EARLY_STOPPED,
    Reason.NOT_PROMISING,
)
EXTRAPOLATION_FACTOR = 4.0  # expected further decrease of an energy, relative to that in the last HISTORY_STEPS steps
FIRST_ASKED = 10  # step; before it, the bound on moves hides how far an energy will fall
ENERGY_SETTLED = 0.02  # Å; times fmax, the fall of the enthalpy (eV/atom) in HISTORY_STEPS steps of a settled crystal
VOLUME_SETTLED = 0.1  # Å/eV; times fmax, the relative change of the volume in these steps
AT_REST = 0.1  # of fmax; a crystal with smaller forces at the start has converged without a step
FARTHEST = 1e6  # Å or cells; beyond this, double precision is too coarse for positions


class RelaxSettings(Settings):
    """How to relax."""

    optimizer: Literal["fire", "lbfgs"] = "lbfgs"  # or the slower FIRE of ASE, which the papers use with fmax 0.1
    fmax: float = Field(0.05, gt=0)  # eV/Å, longest row of forces and scaled stress at convergence
    max_steps: int = Field(500, ge=0)  # as ASE counts them
    cell: Cell = "full"  # how the lattice relaxes: fully, only its volume, only its shape, or not at all
    pressure: float = Field(0.0, allow_inf_nan=False)  # GPa, external
    keep_symmetry: bool = False  # keep the space group that every crystal has at the start; costs less
    symprec: float = Field(0.01, gt=0)  # Å, tolerance of that space group
    max_seconds: float = Field(600.0, ge=0)  # wall time of one crystal in its batch
    max_volume_change: float = Field(3.0, gt=1)  # factor by which the volume may grow or shrink
    max_energy_rise: float = Field(5.0, gt=0)  # eV/atom from the start, beyond which the potential is not trusted
    max_energy_fall: float = Field(100.0, gt=0)  # the same, downwards
    min_distance: float = Field(0.5, ge=0)  # Å; closer atoms count as fused and end the relaxation
    energy_ceiling: float | None = Field(None, gt=0)  # eV/atom above the lowest of its composition; see `relax`
    share: float = Field(1.0, gt=0, le=1)  # of the crystals of a composition, relaxed in full; for `candidate_funnel`
    guest_steps: int = Field(20, ge=0)  # of the guests alone, before that choice; for `candidate_funnel`


@dataclass(frozen=True, eq=False, kw_only=True)
class Relaxation:
    """One relaxed crystal. If the potential failed (reasons nan, fused_atoms), ``final`` may equal ``initial``.

    Attributes:
        initial, final: before and after; with ``keep_symmetry`` the initial crystal has been moved onto its group.
        energy_initial, energy_final: eV/atom of exactly these two crystals.
        forces_final: (n, 3) eV/Å at ``final``, including those on atoms that were held fixed.
        max_force_initial, max_force: eV/Å, longest row of forces and scaled stress; fixed atoms do not count.
        pressure: GPa at ``final``; positive if the crystal tends to expand.
        steps: optimizer steps taken.
        converged: whether ``max_force`` fell below fmax with no atoms fused, and energy and volume settled.
        reason: why it ended.
        detail: the potential's message if it failed.
        seconds: wall time in the batch.
        n_independent_atoms: atoms computed in each step; with ``keep_symmetry`` one per orbit.
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
    reason: Reason
    detail: str = ""
    seconds: float = 0.0
    n_independent_atoms: int = 0


def may_be_ranked(outcome: Relaxation) -> bool:
    """Whether the final structure and its energy can be compared with others, converged or not."""
    return outcome.reason in RANKED


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
    """Relax crystals in the order given; a crystal that fails gets a reason, and nothing is raised.

    With ``settings.energy_ceiling`` a crystal is stopped early, but not before its tenth step, when its energy, minus
    four times its fall in the last five steps, still lies that much above the lowest energy of its composition: that
    of ``known``, or of a crystal of this call that has converged.

    Args:
        crystals: of any size.
        potential: gives energies, forces and stresses.
        settings: see `RelaxSettings`.
        free: per crystal a boolean (n,) of the atoms that may move, or None for all. Fixed atoms keep their
            fractional coordinates.
        batch_size: crystals that step together.
        max_seconds: wall time of the call; after it, running crystals end with ``wall_time`` and waiting ones with
            ``not_started``.
        known: reduced formula -> eV/atom, the lowest energy so far; only read with ``settings.energy_ceiling``.
        report: called with the index and the result of each crystal as soon as it is done.

    Returns:
        one result per crystal, in the order given.

    Raises:
        ValueError: ``batch_size`` is not positive, or a mask in ``free`` does not fit its crystal.

    Example:
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> from model.potentials.ase import ASEPotential
        >>> copper = Crystal.from_ase(bulk("Cu", a=3.8))
        >>> (result,) = relax([copper], ASEPotential(EMT()), RelaxSettings(fmax=0.01))
        >>> result.converged, round(float(np.linalg.norm(result.final.lattice[0])) * 2**0.5, 2)
        (True, 3.59)
    """
    settings = settings or RelaxSettings()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    masks = [_free_mask(crystal, mask) for crystal, mask in zip(crystals, free or [None] * len(crystals), strict=True)]
    job = _Job(
        crystals=list(crystals),
        masks=masks,
        potential=potential,
        settings=settings,
        deadline=time.perf_counter() + max_seconds,
        report=report,
        lowest=dict(known or {}),
    )
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


@dataclass(frozen=True, eq=False, kw_only=True)
class _Job:
    """Arguments and results of one call of `relax`; lists and dictionaries are by index of the crystal."""

    crystals: list[Crystal]
    masks: list[np.ndarray]
    potential: Potential
    settings: RelaxSettings
    deadline: float
    report: Callable[[int, Relaxation], None]
    lowest: dict[str, float]  # by reduced formula, eV/atom
    projectors: dict[int, Projector] = field(default_factory=dict)
    results: dict[int, Relaxation] = field(default_factory=dict)

    def finish(self, index: int, result: Relaxation) -> None:
        if result.converged:
            formula = result.initial.formula
            self.lowest[formula] = min(result.energy_final, self.lowest.get(formula, math.inf))
        self.results[index] = result
        self.report(index, result)


def _free_mask(crystal: Crystal, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        return np.ones(len(crystal), dtype=bool)
    mask = np.asarray(mask)
    if mask.shape != (len(crystal),) or mask.dtype != bool:
        raise ValueError(f"free must be boolean of shape ({len(crystal)},), got {mask.dtype} of shape {mask.shape}")
    return mask


def _next_filled(waiting: Iterator[int], room: int, job: _Job) -> list[int]:
    """Indices of the next crystals that can start; those that cannot get their result at once."""
    filled: list[int] = []
    while len(filled) < room and (i := next(waiting, None)) is not None:
        if not len(job.crystals[i]):
            job.finish(i, _rejected_at_start(job.crystals[i], Reason.NO_ATOMS))
        elif not _is_finite(job.crystals[i], FARTHEST):
            detail = f"a coordinate or cell vector is not finite, or beyond {FARTHEST:g}"
            job.finish(i, _rejected_at_start(job.crystals[i], Reason.NAN, detail))
        elif time.perf_counter() > job.deadline:
            job.finish(i, _rejected_at_start(job.crystals[i], Reason.NOT_STARTED))
        else:
            filled.append(i)
    return filled


def _is_finite(crystal: Crystal, limit: float) -> bool:
    """Whether all coordinates and cell vectors are numbers within the limit."""
    return all(bool((np.abs(values) < limit).all()) for values in (crystal.lattice, crystal.fractional))


def _rejected_at_start(crystal: Crystal, reason: Reason, detail: str = "") -> Relaxation:
    return Relaxation(
        initial=crystal,
        final=crystal,
        energy_initial=math.nan,
        energy_final=math.nan,
        forces_final=np.full((len(crystal), 3), math.nan),
        max_force_initial=math.nan,
        max_force=math.nan,
        pressure=math.nan,
        steps=0,
        converged=False,
        reason=reason,
        detail=detail,
    )


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
        enthalpies=nan[:, None].expand(-1, HISTORY_STEPS),
        volumes=nan[:, None].expand(-1, HISTORY_STEPS),
        steps=torch.zeros(len(chosen), dtype=torch.int64, device=device),
        entered=torch.full_like(nan, time.perf_counter()),
        optimizer=OPTIMIZERS[settings.optimizer](len(rows), len(chosen), device),
    )


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """The running crystals at one step, and what the potential says of them.

    Attributes:
        running, batch: the crystals.
        evaluation: of the batch.
        forces: (R, 3) generalised forces, eV/Å.
        force: (B,) longest row of these.
        volume: (B,) Å³.
        enthalpy: (B,) eV/atom.
    """

    running: Running
    batch: Batch
    evaluation: BatchEvaluation
    forces: Tensor
    force: Tensor
    volume: Tensor
    enthalpy: Tensor


def _advance(running: Running, job: _Job) -> Running:
    """Evaluate all, hand out the results of those that are done, move the others one step."""
    settings = job.settings
    deformation = running.deformation()
    batch = running.batch(deformation)
    projectors = [job.projectors.get(index) for index in running.index.tolist()]
    evaluation = job.potential.compute(batch, projectors)
    forces = generalised_forces(
        running, batch, evaluation, deformation, cell=settings.cell, pressure=settings.pressure * GPa
    )
    for place, projector in enumerate(projectors):
        if projector is not None:
            project_(forces, running.owner == place, running.row_is_atom, projector)
    force = longest_row(forces, running.owner, len(batch))
    volume = cell_volume(batch.lattice)
    enthalpy = evaluation.energy + settings.pressure * GPa * volume / batch.counts
    fresh = (running.steps == 0)[:, None]
    running = replace(
        running,
        energy_initial=torch.where(fresh[:, 0], evaluation.energy, running.energy_initial),
        force_initial=torch.where(fresh[:, 0], force, running.force_initial),
        enthalpies=torch.where(fresh, enthalpy[:, None], running.enthalpies),
        volumes=torch.where(fresh, volume[:, None], running.volumes),
    )
    now = _Evaluated(running, batch, evaluation, forces, force, volume, enthalpy)
    reasons = _reasons(now, job)
    for place, reason in enumerate(reasons):
        if reason is not None:
            job.finish(int(running.index[place]), _result(place, reason, now, job))
    stay = torch.tensor([reason is None for reason in reasons], device=batch.counts.device)
    rows = stay[running.owner]
    if not stay.all():
        running = keep(running, stay, rows)
    if not len(running.steps):
        return running
    move, optimizer = running.optimizer.step(
        forces[rows], (enthalpy * batch.counts)[stay], running.owner, running.row_is_atom
    )
    return replace(
        running,
        row_position=running.row_position + move,
        enthalpies=torch.cat([enthalpy[stay, None], running.enthalpies[:, :-1]], 1),
        volumes=torch.cat([volume[stay, None], running.volumes[:, :-1]], 1),
        steps=running.steps + 1,
        optimizer=optimizer,
    )


def _reasons(now: _Evaluated, job: _Job) -> list[Reason | None]:
    """Per crystal, why it is done; None if it is not."""
    running, batch, settings, clock = now.running, now.batch, job.settings, time.perf_counter()
    failed = torch.tensor([bool(problem) for problem in now.evaluation.problems], device=now.force.device)
    growth = now.volume / cell_volume(running.origin)
    rise = now.evaluation.energy - running.energy_initial
    tests = {
        Reason.FUSED_ATOMS: fused_atoms(batch, settings.min_distance),
        Reason.NAN: failed | ~torch.isfinite(now.force),
        Reason.VOLUME_RUNAWAY: (growth > settings.max_volume_change) | (growth < 1 / settings.max_volume_change),
        Reason.ENERGY_RUNAWAY: (rise > settings.max_energy_rise) | (rise < -settings.max_energy_fall),
        Reason.CONVERGED: (now.force < settings.fmax) & _settled(now, settings),
        Reason.STEP_LIMIT: running.steps >= settings.max_steps,
        Reason.EARLY_STOPPED: _above_ceiling(now, job),
        Reason.WALL_TIME: (clock - running.entered > settings.max_seconds) | (clock > job.deadline),
    }
    columns = zip(*(test.tolist() for test in tests.values()), strict=True)
    return [next((name for name, hit in zip(tests, row, strict=True) if hit), None) for row in columns]


def fused_atoms(batch: Batch, distance: float) -> Tensor:
    """(B,) whether two atoms are closer than ``distance`` Å; false where a broken cell allows no neighbour list."""
    sound = ~torch.stack(list(broken_cells(batch, distance).values())).any(0)
    fused = torch.zeros_like(sound)
    if sound.any():
        part = batch.select(sound)
        hit = torch.bincount(part.owner[undirected_bonds(part, distance).center], minlength=len(part))
        fused[sound] = hit > 0
    return fused


def _settled(now: _Evaluated, settings: RelaxSettings) -> Tensor:
    """(B,) whether small forces mean a minimum and no plateau: see the top of this file."""
    running = now.running
    fall = running.enthalpies[:, -1] - now.enthalpy
    growth = now.volume / running.volumes[:, -1] - 1
    still = (fall < ENERGY_SETTLED * settings.fmax) & (growth.abs() < VOLUME_SETTLED * settings.fmax)
    still &= ~running.optimizer.concave(now.forces, running.owner, running.row_is_atom)
    return torch.where(running.steps == 0, now.force < AT_REST * settings.fmax, still)


def _above_ceiling(now: _Evaluated, job: _Job) -> Tensor:
    """(B,) whether a crystal is not expected to come near the lowest energy of its composition."""
    energy = now.evaluation.energy
    if job.settings.energy_ceiling is None:
        return torch.zeros_like(energy, dtype=torch.bool)
    lowest = [job.lowest.get(job.crystals[i].formula, math.inf) for i in now.running.index.tolist()]
    ceiling = torch.tensor(lowest, dtype=energy.dtype, device=energy.device) + job.settings.energy_ceiling
    fall = (now.running.enthalpies[:, -1] - now.enthalpy).clamp_min(0)
    return (now.running.steps >= FIRST_ASKED) & (energy - EXTRAPOLATION_FACTOR * fall > ceiling)


def _result(place: int, reason: Reason, now: _Evaluated, job: _Job) -> Relaxation:
    """The result of one crystal of the batch; where the potential failed, with its initial structure and energy."""
    running, batch, evaluation = now.running, now.batch, now.evaluation
    index, steps = int(running.index[place]), int(running.steps[place])
    initial, projector = job.crystals[index], job.projectors.get(index)
    energy, force = float(running.energy_initial[place]), float(running.force_initial[place])
    failed = Relaxation(
        initial=initial,
        final=initial,
        energy_initial=energy,
        energy_final=energy,
        forces_final=np.full((len(initial), 3), math.nan),
        max_force_initial=force,
        max_force=force,
        pressure=math.nan,
        steps=steps,
        converged=False,
        reason=reason,
        detail=evaluation.problems[place],
        seconds=time.perf_counter() - float(running.entered[place]),
        n_independent_atoms=projector.orbits if projector else len(initial),
    )
    if reason == Reason.NAN or failed.detail:
        return failed
    atoms = batch.owner == place
    lattice, positions = batch.lattice[place].cpu().numpy(), batch.positions[atoms].cpu().numpy()
    final = initial if steps == 0 else initial.replace(lattice=lattice, fractional=positions @ np.linalg.inv(lattice))
    return replace(
        failed,
        final=final,
        energy_final=float(evaluation.energy[place]),
        forces_final=evaluation.forces[atoms].cpu().numpy(),
        max_force=float(now.force[place]),
        pressure=-float(evaluation.stress[place].diagonal().mean()) / GPa,
        converged=reason == Reason.CONVERGED,
    )
