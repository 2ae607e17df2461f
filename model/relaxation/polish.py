"""Polishing the crystals that people see: relaxed to the end, off saddle points, and with all their symmetry.

A search relaxes thousands of crystals, most of which nobody looks at, and stops each as soon as it can be judged. What
is reported goes through three more steps:

1. it is relaxed on to small forces;
2. it is shaken and relaxed without symmetry. Forces that keep a space group vanish on saddle points too: where the
   shaken crystal falls lower, it takes the place of the symmetric one;
3. it is symmetrised at a ladder of tolerances and relaxed within the group. The highest group that costs no energy is
   its group, and that crystal is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from pydantic import Field

from model.crystals.crystal import Crystal
from model.potentials.interface import Potential
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax
from model.settings import Settings
from model.symmetry.space_group import EXACT, REPORTED, SpaceGroup, operation_count, refine, space_group

LADDER = (0.3, 0.2, 0.1, 0.05, 0.02, REPORTED)  # Å, tolerances at which groups are looked for
SEED = 0  # of the displacements: all crystals are shaken alike, so that no result depends on the rest of the batch


class PolishSettings(Settings):
    """How reported crystals are polished."""

    lowest: int = Field(50, ge=1)  # distinct crystals of a search that are polished, see `SearchHistory.polish_below`
    fmax: float = Field(0.005, gt=0)  # eV/Å, as in `RelaxSettings`
    max_steps: int = Field(500, ge=0)  # of each relaxation
    tolerance: float = Field(1e-3, ge=0)  # eV/atom that a space group may cost; a saddle point lies further above
    shake: float = Field(0.03, ge=0)  # Å, standard deviation of the displacements of atoms
    strain: float = Field(0.005, ge=0)  # standard deviation of the strains of the cell


@dataclass(frozen=True, kw_only=True, eq=False)
class Polished(Relaxation):
    """A polished crystal; ``initial`` is the one that was given, ``steps`` are those of all relaxations.

    Attributes:
        space_group: of ``final`` at `REPORTED` Å; None if there is none or the relaxation failed.
        fall: eV/atom by which polishing lowered the energy.
        saddle_fall: eV/atom by which the energy fell on the way down from a saddle point; 0 if there was none.
        evaluations: of single atoms, in all relaxations.
    """

    space_group: SpaceGroup | None
    fall: float
    saddle_fall: float
    evaluations: int


def polish(
    crystals: Sequence[Crystal],
    potential: Potential,
    relaxation: RelaxSettings,
    settings: PolishSettings | None = None,
    *,
    free: Sequence[np.ndarray | None] | None = None,
    batch_size: int = 32,
) -> list[Polished]:
    """Polish relaxed crystals, in the order given.

    Atoms keep their order and the cell that was given, which may hold several primitive cells. Higher space groups are
    tried only where everything may move.

    Args:
        crystals: relaxed.
        potential: the one that relaxed them.
        relaxation: how they were relaxed; its ``cell``, ``pressure``, ``keep_symmetry`` and limits hold here too.
        settings: see `PolishSettings`.
        free: per crystal a boolean (n,) of the atoms that may move, or None for all.
        batch_size: crystals that step together.
    """
    masks = list(free or [None] * len(crystals))
    job = _Polishing(potential, relaxation, settings or PolishSettings(), batch_size, masks)
    everything = dict(enumerate(crystals))
    first = job.relax(everything, keep_symmetry=relaxation.keep_symmetry)
    job.results.update(first)
    job.leave_saddle_points()
    if relaxation.cell == "full":
        job.raise_symmetry()
    return [job.polished(i, first[i]) for i in everything]


class _Polishing:
    """The crystals of one call on their way, by index."""

    def __init__(
        self,
        potential: Potential,
        relaxation: RelaxSettings,
        settings: PolishSettings,
        batch_size: int,
        masks: Sequence[np.ndarray | None],
    ) -> None:
        update = {
            "optimizer": "lbfgs",
            "fmax": settings.fmax,
            "max_steps": settings.max_steps,
            "energy_ceiling": None,
            "symprec": EXACT,
        }
        self.potential, self.settings, self.batch_size, self.masks = potential, settings, batch_size, masks
        self.fine = relaxation.model_copy(update=update)
        self.results: dict[int, Relaxation] = {}  # the best so far
        self.steps, self.evaluations = [0] * len(masks), [0] * len(masks)
        self.saddle_fall = [0.0] * len(masks)

    def relax(self, crystals: dict[int, Crystal], *, keep_symmetry: bool) -> dict[int, Relaxation]:
        """Relax crystals to small forces, and count what it took."""
        settings = self.fine.model_copy(update={"keep_symmetry": keep_symmetry})
        free = [self.masks[i] for i in crystals]
        found = relax(list(crystals.values()), self.potential, settings, free=free, batch_size=self.batch_size)
        for i, one in zip(crystals, found, strict=True):
            self.steps[i] += one.steps
            self.evaluations[i] += (one.steps + 1) * one.n_independent_atoms
        return dict(zip(crystals, found, strict=True))

    def leave_saddle_points(self) -> None:
        """Where the shaken crystal relaxes to a lower energy, go on from there."""
        shaken = {i: self._shaken(one.final, self.masks[i]) for i, one in self._sound().items()}
        for i, lower in self.relax(shaken, keep_symmetry=False).items():
            fall = self.results[i].energy_final - lower.energy_final
            if lower.converged and fall > self.settings.tolerance:
                self.results[i], self.saddle_fall[i] = lower, fall

    def raise_symmetry(self) -> None:
        """Try higher groups, highest first, until none is left that costs no energy."""
        before = {i: one for i, one in self._sound().items() if self.masks[i] is None}
        waiting = {i: _symmetrised(one.final, operation_count(one.final, EXACT)) for i, one in before.items()}
        while waiting := {i: ways for i, ways in waiting.items() if ways}:
            tried = self.relax({i: ways.pop(0) for i, ways in waiting.items()}, keep_symmetry=True)
            for i, one in tried.items():
                if one.converged and one.energy_final - before[i].energy_final < self.settings.tolerance:
                    self.results[i] = one  # which may have come near to a group higher still
                    waiting[i] = _symmetrised(one.final, operation_count(one.initial, EXACT))

    def polished(self, i: int, first: Relaxation) -> Polished:
        """The polished crystal."""
        best = self.results[i]
        return Polished(
            **{one.name: getattr(best, one.name) for one in fields(Relaxation)}
            | {
                "initial": first.initial,
                "energy_initial": first.energy_initial,
                "max_force_initial": first.max_force_initial,
                "steps": self.steps[i],
            },
            space_group=space_group(best.final, REPORTED, -1.0) if may_be_ranked(best) else None,
            fall=first.energy_initial - best.energy_final,
            saddle_fall=self.saddle_fall[i],
            evaluations=self.evaluations[i],
        )

    def _sound(self) -> dict[int, Relaxation]:
        return {i: one for i, one in self.results.items() if may_be_ranked(one)}

    def _shaken(self, crystal: Crystal, free: np.ndarray | None) -> Crystal:
        """A crystal with all that may move displaced at random."""
        rng = np.random.default_rng(SEED)
        moves = rng.normal(0.0, self.settings.shake, (len(crystal), 3))
        strain = rng.normal(0.0, self.settings.strain, (3, 3))
        if free is not None:
            moves[~free] = 0.0
        fractional = crystal.fractional + moves @ np.linalg.inv(crystal.lattice)
        if self.fine.cell != "full":
            return crystal.replace(fractional=fractional)
        return crystal.replace(fractional=fractional, lattice=crystal.lattice @ (np.eye(3) + (strain + strain.T) / 2))


def _symmetrised(crystal: Crystal, known: int) -> list[Crystal]:
    """The crystal moved onto each group of more than ``known`` operations that it has within a tolerance of `LADDER`.

    The largest group comes first.
    """
    found = list[Crystal]()
    for tolerance in reversed(LADDER):
        refined = refine(crystal, tolerance, -1.0) if operation_count(crystal, tolerance) > known else None
        if refined is not None:
            known = operation_count(refined.parent, EXACT)
            found.insert(0, refined.parent)
    return found
