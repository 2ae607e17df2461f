"""Guests that keep the space group of their host: which orbits they may fill, and templates for the sampler.

The group is that of the host without guests, or one of its subgroups. Guests fill whole orbits, whose multiplicities
add up to the number of guests. Which orbits is drawn at random, never taken from a known answer. The sampler then moves
guests only in ways that the group keeps, because score and noise are averaged over its operations
(`model.symmetry.projector.Projector`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings, closest_allowed, pair_distances
from model.diffusion.sampler import AncestralSettings, SamplerSettings, Template
from model.settings import Settings
from model.symmetry.projector import Projector
from model.symmetry.space_group import EXACT, carried, fractional_operations, generic_dataset, refine
from model.symmetry.wyckoff import wyckoff_positions

SAME = 1e-4  # fractional, points closer than this are one
PARSIMONY = 0.5  # a choice of k orbits is drawn with weight PARSIMONY^k
TRIES = 20


class SymmetricSettings(Settings):
    """Guests in orbits of their host's space group; of the largest subgroup that has room where it has none."""

    kind: Literal["symmetric"] = "symmetric"
    sampler: SamplerSettings = Field(AncestralSettings(), discriminator="kind")


class SubgroupSettings(Settings):
    """Guests in orbits of a subgroup of their host's space group."""

    kind: Literal["subgroup"] = "subgroup"
    descend: float = Field(0.5, ge=0, lt=1)  # chance to pass over a subgroup and try the next smaller one
    sampler: SamplerSettings = Field(AncestralSettings(), discriminator="kind")


@dataclass(frozen=True, eq=False)
class Site:
    """A Wyckoff position in the cell of a host.

    Attributes:
        multiplicity: atoms that fill one orbit, in the host's cell.
        freedom: coordinates that may be chosen, 0 to 3. A site without any is filled once at most.
        point: (3,) fractional coordinates of one of its points that lies on no other site.
        span: (3, 3) projection of fractional columns onto the directions in which that point may move.
        makers: (multiplicity,) the operation that makes each point of the orbit from the first.
    """

    multiplicity: int
    freedom: int
    point: np.ndarray
    span: np.ndarray
    makers: np.ndarray


@dataclass(frozen=True, eq=False)
class HostGroup:
    """Operations x → R x + t that a host has in its cell; they form a group.

    Attributes:
        host: the crystal without guests, exactly symmetric.
        rotations: (G, 3, 3) of fractional columns.
        translations: (G, 3) fractional.
    """

    host: Crystal
    rotations: np.ndarray
    translations: np.ndarray
    _roomy: dict[tuple[int, int], bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rotations)

    def __str__(self) -> str:
        return f"{self._dataset.international} ({self.number})"

    @property
    def number(self) -> int:
        """Of the type of space group, 1 to 230."""
        return int(self._dataset.number)

    @cached_property
    def sites(self) -> list[Site]:
        """The Wyckoff positions, fewest atoms first."""
        back = np.linalg.inv(self._dataset.transformation_matrix)
        found = [
            self._site(back @ (position.point - self._dataset.origin_shift), back @ position.span @ np.linalg.inv(back))
            for position in wyckoff_positions(self._dataset.hall_number)
        ]
        return sorted(found, key=lambda site: (site.multiplicity, site.freedom))

    def sites_with_room(self, number: int, count: int) -> list[Site]:
        """Sites that take up to ``count`` atoms of an element without overlap with the host or within, somewhere."""
        return [site for site in self.sites if site.multiplicity <= count and self._has_room(site, number)]

    def _has_room(self, site: Site, number: int) -> bool:
        key = (id(site), number)
        if key not in self._roomy:
            places = np.random.default_rng(0).random((TRIES if site.freedom else 1, 3))
            numbers = [number] * site.multiplicity
            self._roomy[key] = any(self.fits(self.orbit(site, at), numbers) for at in places)
        return self._roomy[key]

    def orbit(self, site: Site, at: np.ndarray) -> np.ndarray:
        """(multiplicity, 3) fractional: the orbit whose first point is ``at`` (3,), moved onto the site."""
        first = site.point + site.span @ (at - site.point)
        return self.rotations[site.makers] @ first + self.translations[site.makers]

    def fits(self, points: np.ndarray, numbers: Sequence[int]) -> bool:
        """Whether atoms at fractional ``points`` (m, 3) overlap neither with the host nor with each other."""
        whole = self.host.join(Crystal(self.host.lattice, points, np.array(numbers)))
        one, other, distance = pair_distances(whole, cutoff=3.0)
        guests = one >= len(self.host)
        allowed = closest_allowed(whole.numbers[one], whole.numbers[other], ScreenSettings())
        return not (distance < allowed)[guests].any()

    def projector(self, chosen: Sequence[Site]) -> Projector:
        """Of displacements of the host's atoms and of the orbits chosen, in this order."""
        lattice = self.host.lattice
        turns = np.linalg.inv(lattice) @ self.rotations.transpose(0, 2, 1) @ lattice
        targets = [np.stack(self._host_targets())]
        for site in chosen:
            targets.append(self._targets(site) + sum(part.shape[1] for part in targets))
        return Projector(torch.from_numpy(turns), torch.from_numpy(np.concatenate(targets, axis=1)))

    def _host_targets(self) -> list[np.ndarray]:
        """A (n,) atom that each atom of the host is carried to, for each operation."""
        pairs = zip(self.rotations, self.translations, strict=True)
        return [target for pair in pairs if (target := carried(self.host, *pair)) is not None]

    def _targets(self, site: Site) -> np.ndarray:
        """(G, multiplicity) the point of an orbit that each operation carries each of its points to."""
        orbit = self.orbit(site, site.point)
        moved = np.einsum("gij,mj->gmi", self.rotations, orbit) + self.translations[:, None]
        return _same(moved[:, :, None], orbit).argmax(-1)

    @cached_property
    def _dataset(self) -> Any:
        return generic_dataset(self.host.lattice, self.rotations, self.translations)

    def _site(self, point: np.ndarray, span: np.ndarray) -> Site:
        images = self.rotations @ point + self.translations
        same = _same(images[:, None], images)  # (G, G) whether two operations make the same point
        at_home = images[_same(images, point)]
        point = (at_home - np.round(at_home - point)).mean(0)  # free of rounding
        makers = np.flatnonzero(same.argmax(1) == np.arange(len(images)))
        makers = np.roll(makers, -int(np.flatnonzero(_same(images[makers], point))[0]))
        return Site(len(makers), round(np.trace(span)), point, span, makers)


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether fractional coordinates (..., 3) agree but for lattice translations."""
    step = one - other
    return (np.abs(step - np.round(step)) < SAME).all(-1)


def host_groups(host: Crystal, *, symprec: float = EXACT) -> list[HostGroup]:
    """The space group of a host, and its subgroups that keep all of its translations, largest first.

    Of subgroups that are conjugate in the host's group one is given. The last has translations only.

    Args:
        host: a crystal without guests, in any cell.
        symprec: Å, how far atoms may be off. Guests are as symmetric as the host is: move it onto its group first
            (`model.symmetry.space_group.refine`) if that matters.

    Raises:
        ValueError: spglib finds no group at this tolerance.
    """
    refined = refine(host, symprec, -1.0)
    if refined is None:
        raise ValueError(
            f"no space group found for {host.formula} within {symprec} Å: atoms overlap, or the tolerance is too large"
        )
    rotations, translations = fractional_operations(refined.parent)
    distinct, kind = np.unique(rotations, axis=0, return_inverse=True)
    return [
        HostGroup(refined.parent, rotations[mask], translations[mask])
        for members in _subgroups(distinct)
        for mask in [np.isin(kind.reshape(-1), members)]
    ]


def has_symmetric_subgroups(number: int) -> bool:
    """Whether a space group has subgroups with more than translations: not where its point group has prime order."""
    return not (number <= 9 or 143 <= number <= 146)  # 1, -1, 2, m; 3


def _subgroups(rotations: np.ndarray) -> list[list[int]]:
    """Subgroups of a point group (G, 3, 3) as lists of members, largest first, one of each class of conjugates."""
    place = {rotation.tobytes(): index for index, rotation in enumerate(rotations)}
    table = np.array([[place[(one @ other).tobytes()] for other in rotations] for one in rotations])
    identity = place[np.eye(3, dtype=rotations.dtype).tobytes()]
    inverse = (table == identity).argmax(1)
    trivial = frozenset([identity])
    found, fresh = {trivial}, [trivial]
    while fresh:
        larger = {_closure(group | {extra}, table) for group in fresh for extra in set(range(len(table))) - group}
        fresh = sorted(larger - found, key=sorted)
        found.update(fresh)
    classes: list[list[int]] = []
    seen: set[frozenset[int]] = set()
    for group in sorted(found, key=lambda group: (-len(group), sorted(group))):
        if group not in seen:
            classes.append(sorted(group))
            members = np.array(classes[-1])
            seen.update(frozenset(table[table[g, members], inverse[g]].tolist()) for g in range(len(table)))
    return classes


def _closure(members: frozenset[int], table: np.ndarray) -> frozenset[int]:
    while True:
        some = np.array(sorted(members))
        products = frozenset(table[np.ix_(some, some)].ravel().tolist()) | members
        if products == members:
            return members
        members = products


def place_guests(template: Template, group: HostGroup) -> Template | None:
    """Put the guests of a template on orbits of the group; `model.diffusion.sampler.sample` then keeps the group.

    The template's seed decides which orbits, and where on them the guests start. Orbits are drawn with weight
    `PARSIMONY` each, those without a free coordinate once at most and only where they overlap with nothing.

    Args:
        template: its crystal without guests is the group's host, atom by atom.
        group: one of `host_groups`.

    Returns:
        None if no orbits add up to the number of guests: try a smaller group.
    """
    if not np.array_equal(template.crystal.numbers[~template.guest], group.host.numbers):
        raise ValueError(
            f"the group belongs to the host {group.host.formula}, but the template is {template.crystal.formula} with"
            f" {template.guest.sum()} guests"
        )
    rng = np.random.default_rng(template.seed)
    for _ in range(TRIES):
        chosen = _choose(template.crystal.numbers[template.guest], group, rng)
        if chosen is None:
            continue
        numbers = np.concatenate([[number] * site.multiplicity for number, site in chosen])
        points = np.concatenate([group.orbit(site, rng.random(3)) for _, site in chosen])
        fixed = np.concatenate([[site.freedom == 0] * site.multiplicity for _, site in chosen])
        if not fixed.any() or group.fits(points[fixed], numbers[fixed]):
            return _placed(template, group, [site for _, site in chosen], points, numbers)
    return None


def on_orbits(template: Template, groups: Sequence[HostGroup], descend: float = 0.0) -> Template:
    """The template with its guests on orbits of one of the groups.

    Args:
        template: its seed decides everything.
        groups: of its host, largest first, see `host_groups`.
        descend: chance to pass over a group, and come back to it only if no smaller one will do.

    Returns:
        the template as it is where no group but the translations has room for so many guests.
    """
    rng = np.random.default_rng([template.seed, 1])
    symmetric = [group for group in groups if group.number > 1]
    for group in sorted(symmetric, key=lambda _: rng.random() < descend):
        placed = place_guests(template, group)
        if placed is not None:
            return placed
    return template


def _choose(numbers: np.ndarray, group: HostGroup, rng: np.random.Generator) -> list[tuple[int, Site]] | None:
    """(element, orbit's site) pairs that hold just the guests of these atomic numbers; None if the draw fails."""
    chosen: list[tuple[int, Site]] = []
    for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
        taken = {id(site) for _, site in chosen if site.freedom == 0}
        sites = [site for site in group.sites_with_room(int(number), int(count)) if id(site) not in taken]
        times = draw_orbits([(site.multiplicity, site.freedom == 0) for site in sites], int(count), rng)
        if times is None:
            return None
        chosen += [(int(number), site) for site, n in zip(sites, times, strict=True) for _ in range(n)]
    return chosen


def draw_orbits(sites: Sequence[tuple[int, bool]], count: int, rng: np.random.Generator) -> list[int] | None:
    """How often each site is filled so that the multiplicities add up to ``count``; None if they cannot.

    Every such choice of k orbits is drawn with a probability proportional to ``PARSIMONY**k``.

    Args:
        sites: of each its multiplicity, and whether it can be filled once only.
        count: guests.
        rng: decides the draw.
    """
    weight = np.zeros((len(sites) + 1, count + 1))  # of all choices among the sites from here on
    weight[-1, 0] = 1.0
    for index in reversed(range(len(sites))):
        for left in range(count + 1):
            weight[index, left] = sum(
                PARSIMONY**n * weight[index + 1, left - n * sites[index][0]] for n in _times(sites[index], left)
            )
    if weight[0, count] == 0:
        return None
    drawn, left = [], count
    for index, site in enumerate(sites):
        times = list(_times(site, left))
        share = np.array([PARSIMONY**n * weight[index + 1, left - n * site[0]] for n in times])
        drawn.append(int(rng.choice(times, p=share / share.sum())))
        left -= drawn[-1] * site[0]
    return drawn


def _times(site: tuple[int, bool], left: int) -> range:
    multiplicity, once = site
    most = left // multiplicity
    return range((min(most, 1) if once else most) + 1)


def _placed(
    template: Template, group: HostGroup, sites: Sequence[Site], points: np.ndarray, numbers: np.ndarray
) -> Template:
    """The template with its guests at these points, and the projector in the template's order of atoms."""
    own = np.flatnonzero(template.guest)
    guests = own[np.argsort(template.crystal.numbers[own], kind="stable")]  # as `numbers` are sorted
    order = np.concatenate([np.flatnonzero(~template.guest), guests])
    projector = group.projector(sites)
    targets = torch.empty_like(projector.targets)
    targets[:, torch.from_numpy(order)] = torch.from_numpy(order)[projector.targets]
    fractional = template.crystal.fractional.copy()
    fractional[guests] = points
    assert np.array_equal(template.crystal.numbers[guests], numbers)
    crystal = template.crystal.replace(fractional=fractional)
    return replace(template, crystal=crystal, start_here=True, projector=Projector(projector.turns, targets))
