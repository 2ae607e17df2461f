"""Fewer full relaxations: single points or guests alone for all candidates, then full ones for the lowest of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from model.crystals.crystal import Crystal
from model.potentials.interface import Potential
from model.reasons import Reason
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax


def relax_in_stages(
    crystals: Sequence[Crystal],
    potential: Potential,
    settings: RelaxSettings,
    *,
    free: Sequence[np.ndarray | None] | None = None,
    guests: Sequence[np.ndarray | None] | None = None,
    known: Mapping[str, float] | None = None,
    batch_size: int = 32,
) -> list[Relaxation]:
    """Relax the ``settings.share`` lowest crystals of every composition in full, at least one.

    Crystals are ranked by their energy after ``settings.guest_steps`` steps in which only the guests move and the cell
    is fixed; if all atoms are guests, or none are named, by their single-point energy. These two kinds are ranked
    separately. The full relaxation continues from there. The others end as ``not_promising``, with their structure and
    energy at that point.

    Args:
        crystals: of any size.
        potential: gives energies, forces and stresses.
        settings: of the full relaxation, and of the selection.
        free: per crystal a boolean (n,) of the atoms that may move in full relaxations, or None for all.
        guests: per crystal a boolean (n,) of the atoms that were placed into a host, or None.
        known: as for `model.relaxation.relax.relax`.
        batch_size: crystals that step together.
    """
    free, guests = free or [None] * len(crystals), guests or [None] * len(crystals)
    if settings.share == 1:
        return relax(crystals, potential, settings, free=free, known=known, batch_size=batch_size)
    results = _ranking_steps(crystals, potential, settings, free=free, guests=guests, batch_size=batch_size)
    chosen = _lowest(results, [_are_part(mask) for mask in guests], settings.share)
    full = relax(
        [results[i].final for i in chosen],
        potential,
        settings,
        free=[free[i] for i in chosen],
        known=known,
        batch_size=batch_size,
    )
    for index, result in zip(chosen, full, strict=True):
        results[index] = _combined(results[index], result)
    return results


def _ranking_steps(
    crystals: Sequence[Crystal],
    potential: Potential,
    settings: RelaxSettings,
    *,
    free: Sequence[np.ndarray | None],
    guests: Sequence[np.ndarray | None],
    batch_size: int,
) -> list[Relaxation]:
    """Every crystal after the steps of its guests alone, or after a single point."""
    update = {"cell": "fixed", "energy_ceiling": None, "keep_symmetry": False}
    results: dict[int, Relaxation] = {}
    alone = {i for i, mask in enumerate(guests) if _are_part(mask)}
    for moving, steps in ((alone, settings.guest_steps), (set(range(len(crystals))) - alone, 0)):
        indices = sorted(moving)
        masks = [_both(guests[i], free[i]) if steps else free[i] for i in indices]
        some = settings.model_copy(update={**update, "max_steps": steps})
        found = relax([crystals[i] for i in indices], potential, some, free=masks, batch_size=batch_size)
        for index, result in zip(indices, found, strict=True):
            promising = (
                replace(result, converged=False, reason=Reason.NOT_PROMISING) if may_be_ranked(result) else result
            )
            results[index] = promising
    return [results[i] for i in range(len(crystals))]


def _both(guests: np.ndarray | None, free: np.ndarray | None) -> np.ndarray | None:
    return guests if free is None or guests is None else guests & free


def _are_part(guests: np.ndarray | None) -> bool:
    """Whether guests are named, and other atoms are there too."""
    return guests is not None and bool(guests.any()) and not guests.all()


def _lowest(results: Sequence[Relaxation], alone: Sequence[bool], share: float) -> list[int]:
    """Indices of the lowest share of every composition, crystals whose guests moved alone ranked separately."""
    groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, result in enumerate(results):
        if may_be_ranked(result):
            groups[result.initial.formula, alone[index]].append(index)
    kept = [
        sorted(group, key=lambda i: results[i].energy_final)[: math.ceil(share * len(group))]
        for group in groups.values()
    ]
    return sorted(index for group in kept for index in group)


def _combined(cheap: Relaxation, full: Relaxation) -> Relaxation:
    """The two relaxations of one crystal as one."""
    return replace(
        full,
        initial=cheap.initial,
        energy_initial=cheap.energy_initial,
        max_force_initial=cheap.max_force_initial,
        steps=cheap.steps + full.steps,
        seconds=cheap.seconds + full.seconds,
    )
