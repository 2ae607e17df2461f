"""Initial positions of guests without a network: at random without overlap, or in the voids of the host.

They are baselines for the samplers, and starting points: a template that is returned starts where its guests are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import shortest_lengths
from model.crystals.screening import ScreenSettings, closest_allowed
from model.crystals.voids import void_sites
from model.diffusion.sampler import Template

Allowed = Callable[[np.ndarray], np.ndarray]
PLACEMENT_TRIES = 200  # random positions per guest; the first without overlap is used, else the one with most room


def everywhere(places: np.ndarray) -> np.ndarray:
    """(m,) true: every fractional place (m, 3) is allowed."""
    return np.ones(len(places), dtype=bool)


def uniform(template: Template, *, where: Allowed = everywhere) -> Template:
    """Guests one after another at uniformly random places, without overlap if there is such a place.

    Args:
        template: its seed determines the places.
        where: which fractional places (m, 3) guests may take; enough of the cell for random points to find some.
    """
    rng = np.random.default_rng(template.seed)
    return _filled(template, [_tries(rng, where) for _ in range(template.guest.sum())])


def voronoi_voids(template: Template, *, spread: float = 0.0, where: Allowed = everywhere) -> Template:
    """Guests in `void_sites` of the host, preferably wide ones, and at random where there are too few.

    Args:
        template: its seed determines the places.
        spread: Å, standard deviation of normal noise about the voids, for a sampler that starts at this noise level.
        where: as for `uniform`.
    """
    rng = np.random.default_rng(template.seed)
    count = int(template.guest.sum())
    voids = void_sites(template.crystal.select(~template.guest))
    sites = np.array([void.fractional for void in voids]).reshape(-1, 3)
    # Gumbel noise: an order drawn without replacement, proportional to exp(radius / 0.1 Å)
    handicap = np.array([void.radius for void in voids]) / 0.1 + rng.gumbel(size=len(voids))
    places = sites[np.argsort(-handicap)]
    places = places[where(places)]
    filled = _filled(template, [np.concatenate([places, _tries(rng, where)]) for _ in range(count)])
    noise = spread * rng.standard_normal((count, 3)) @ np.linalg.inv(template.crystal.lattice)
    fractional = filled.crystal.fractional.copy()
    fractional[template.guest] += noise
    return replace(filled, crystal=filled.crystal.replace(fractional=fractional))


def _tries(rng: np.random.Generator, where: Allowed) -> np.ndarray:
    places = rng.random((PLACEMENT_TRIES, 3))
    return places[where(places)]


def _filled(template: Template, places: list[np.ndarray]) -> Template:
    """The template, each guest at the first of its places (m, 3) without an overlap, else at that with most room."""
    fractional, numbers = template.crystal.fractional.copy(), template.crystal.numbers
    there = ~template.guest
    for atom, candidates in zip(np.flatnonzero(template.guest), places, strict=True):
        room = _room(candidates, int(numbers[atom]), template.crystal.replace(fractional=fractional).select(there))
        free = np.flatnonzero(room > 0)
        fractional[atom] = candidates[free[0] if len(free) else room.argmax()]
        there[atom] = True
    return replace(template, crystal=template.crystal.replace(fractional=fractional), start_here=True)


def _room(places: np.ndarray, number: int, others: Crystal) -> np.ndarray:
    """(m,) Å by which an atom of this element at each place is further from others than the closest allowed."""
    if len(others) == 0:
        return np.full(len(places), np.inf)
    step = places[:, None] - others.fractional[None]
    distance = shortest_lengths(step, others.lattice)
    return (distance - closest_allowed(np.full(len(others), number), others.numbers, ScreenSettings())).min(1)
