"""Guests that keep the space group of their host: which orbits they may fill, and templates for the sampler.

The group is that of the host without guests, or one of its subgroups. Guests fill whole orbits, whose multiplicities
add up to the number of guests. The orbits are drawn at random, never taken from a known answer. The sampler then moves
guests only such that the group is kept, because score and noise are averaged over its operations
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
from model.crystals.neighbors import pair_distances
from model.crystals.periodic_images import rounded_steps
from model.crystals.screening import ScreenSettings, closest_allowed
from model.diffusion.sampler import AncestralSettings, SamplerSettings, Template
from model.settings import Settings
from model.symmetry.projector import Projector
from model.symmetry.sites import WyckoffSite, wyckoff_sites
from model.symmetry.space_group import EXACT, fractional_operations, generic_dataset, refine, site_permutation

SAME_POSITION = 1e-4  # fractional, points closer than this coincide
PARSIMONY = 0.5  # a choice of k orbits is drawn with weight PARSIMONY^k
PLACEMENT_TRIES = 20


class SymmetricSettings(Settings):
    """Guests on orbits of their host's space group, or of its largest subgroup with room for them."""

    kind: Literal["symmetric"] = "symmetric"
    sampler: SamplerSettings = Field(AncestralSettings(), discriminator="kind")


class SubgroupSettings(Settings):
    """Guests on orbits of a subgroup of their host's space group."""

    kind: Literal["subgroup"] = "subgroup"
    descend: float = Field(0.5, ge=0, lt=1)  # probability to skip a subgroup and try the next smaller one
    sampler: SamplerSettings = Field(AncestralSettings(), discriminator="kind")


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
    _separated: dict[tuple[int, int], bool] = field(default_factory=dict)  # by site and atomic number

    def __len__(self) -> int:
        return len(self.rotations)

    def __str__(self) -> str:
        return f"{self._dataset.international} ({self.number})"

    @property
    def number(self) -> int:
        """Number of the space-group type, 1 to 230."""
        return int(self._dataset.number)

    @property
    def is_recognised(self) -> bool:
        """Whether spglib finds its type; it does not where a relaxed cell is only nearly as symmetric as the group."""
        return self._dataset is not None

    @cached_property
    def sites(self) -> list[WyckoffSite]:
        """The Wyckoff positions in the host's cell, fewest atoms first."""
        back = np.linalg.inv(self._dataset.transformation_matrix)
        found = [
            self._site(
                back @ (standard.point - self._dataset.origin_shift),
                back @ standard.free_projection @ np.linalg.inv(back),
            )
            for standard in wyckoff_sites(self._dataset.hall_number)
        ]
        return sorted(found, key=lambda site: (site.multiplicity, site.n_free))

    def sites_with_room(self, number: int, count: int) -> list[WyckoffSite]:
        """Sites that up to ``count`` atoms of an element can fill without overlap with the host or each other."""
        return [site for site in self.sites if site.multiplicity <= count and self._is_separated(site, number)]

    def _is_separated(self, site: WyckoffSite, number: int) -> bool:
        """Whether one of `PLACEMENT_TRIES` orbits at random overlaps neither with the host nor with itself."""
        key = (id(site), number)
        if key not in self._separated:
            places = np.random.default_rng(0).random((PLACEMENT_TRIES if site.n_free else 1, 3))
            numbers = [number] * site.multiplicity
            self._separated[key] = any(self.fits(site.orbit(at), numbers) for at in places)
        return self._separated[key]

    def fits(self, points: np.ndarray, numbers: Sequence[int]) -> bool:
        """Whether atoms at fractional ``points`` (m, 3) overlap neither with the host nor with each other."""
        whole = self.host.join(Crystal(self.host.lattice, points, np.array(numbers)))
        one, other, distance = pair_distances(whole, cutoff=3.0)
        guests = one >= len(self.host)
        allowed = closest_allowed(whole.numbers[one], whole.numbers[other], ScreenSettings())
        return not (distance < allowed)[guests].any()

    def projector(self, chosen: Sequence[WyckoffSite]) -> Projector:
        """The projector for the host's atoms followed by those on the chosen orbits."""
        lattice = self.host.lattice
        rotations = np.linalg.inv(lattice) @ self.rotations.transpose(0, 2, 1) @ lattice
        targets = [np.stack(self._host_targets())]
        for site in chosen:
            targets.append(self._targets(site) + sum(part.shape[1] for part in targets))
        return Projector(torch.from_numpy(rotations), torch.from_numpy(np.concatenate(targets, axis=1)))

    def _host_targets(self) -> list[np.ndarray]:
        """For each operation, (n,) the atom that it maps each atom of the host to."""
        pairs = zip(self.rotations, self.translations, strict=True)
        return [target for pair in pairs if (target := site_permutation(self.host, *pair)) is not None]

    def _targets(self, site: WyckoffSite) -> np.ndarray:
        """(G, multiplicity) the point of an orbit that each operation maps each of its points to."""
        orbit = site.orbit(site.point)
        moved = np.einsum("gij,mj->gmi", self.rotations, orbit) + self.translations[:, None]
        return _same(moved[:, :, None], orbit).argmax(-1)

    @cached_property
    def _dataset(self) -> Any:
        return generic_dataset(self.host.lattice, self.rotations, self.translations)

    def _site(self, point: np.ndarray, free_projection: np.ndarray) -> WyckoffSite:
        images = self.rotations @ point + self.translations
        same = _same(images[:, None], images)  # (G, G) whether two operations make the same point
        at_home = images[_same(images, point)]
        point = (at_home - np.round(at_home - point)).mean(0)  # free of rounding
        cosets = np.flatnonzero(same.argmax(1) == np.arange(len(images)))  # the first operation of each
        cosets = np.roll(cosets, -int(np.flatnonzero(_same(images[cosets], point))[0]))
        return WyckoffSite(
            n_free=round(np.trace(free_projection)),
            point=point,
            free_projection=free_projection,
            rotations=self.rotations[cosets],
            translations=self.translations[cosets],
        )


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether fractional coordinates (..., 3) agree up to lattice translations."""
    return (np.abs(rounded_steps(one - other)) < SAME_POSITION).all(-1)


def host_groups(host: Crystal, *, symprec: float = EXACT) -> list[HostGroup]:
    """The space group of a host, and its subgroups that keep all of its translations, largest first.

    Of subgroups that are conjugate in the host's group only one is returned. The last has only translations. Those
    whose type spglib does not find are left out.

    Args:
        host: a crystal without guests, in any cell.
        symprec: Å, tolerance for the symmetry of the host. For a host that is only roughly symmetric, call
            `model.symmetry.space_group.refine` first.

    Raises:
        ValueError: spglib finds no group at this tolerance.

    Example:
        >>> silicon = Crystal(2.72 * (1 - np.eye(3)), [[0, 0, 0], [0.25, 0.25, 0.25]], [14, 14])
        >>> groups = host_groups(silicon)
        >>> print(len(groups), groups[0], groups[-1])
        33 Fd-3m (227) P1 (1)
    """
    refined = refine(host, symprec, -1.0)
    if refined is None:
        raise ValueError(
            f"no space group found for {host.formula} within {symprec} Å: atoms overlap, or the tolerance is too large"
        )
    rotations, translations = fractional_operations(refined.parent)
    distinct, kind = np.unique(rotations, axis=0, return_inverse=True)
    found = [
        HostGroup(refined.parent, rotations[mask], translations[mask])
        for members in _subgroups(distinct)
        for mask in [np.isin(kind.reshape(-1), members)]
    ]
    return [group for group in found if group.is_recognised]


def has_symmetric_subgroups(number: int) -> bool:
    """Whether a space group has subgroups with more than translations, that is, a point group not of prime order."""
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

    The template's seed determines the orbits, and where on them the guests start. Each orbit has weight `PARSIMONY`;
    those without a free coordinate are filled once at most, and only where they overlap with nothing.

    Args:
        template: its crystal without guests is the group's host, atom by atom.
        group: one of `host_groups`.

    Returns:
        None if no orbits add up to the numbers of guests: try a smaller group.
    """
    if not np.array_equal(template.crystal.numbers[~template.guest], group.host.numbers):
        raise ValueError(
            f"the group belongs to the host {group.host.formula}, but the template is {template.crystal.formula} with"
            f" {template.guest.sum()} guests"
        )
    rng = np.random.default_rng(template.seed)
    for _ in range(PLACEMENT_TRIES):
        chosen = _choose(template.crystal.numbers[template.guest], group, rng)
        if chosen is None:
            continue
        numbers = np.concatenate([[number] * site.multiplicity for number, site in chosen])
        points = np.concatenate([site.orbit(rng.random(3)) for _, site in chosen])
        fixed = np.concatenate([[site.n_free == 0] * site.multiplicity for _, site in chosen])
        if not fixed.any() or group.fits(points[fixed], numbers[fixed]):
            return _placed(template, group, [site for _, site in chosen], points, numbers)
    return None


def on_orbits(template: Template, groups: Sequence[HostGroup], descend: float = 0.0) -> Template:
    """The template with its guests on orbits of one of the groups.

    Args:
        template: its seed determines everything.
        groups: of its host, largest first, see `host_groups`.
        descend: probability to skip a group, which is then tried after all smaller ones.

    Returns:
        the template unchanged where no group with more than translations has room for the guests.
    """
    rng = np.random.default_rng([template.seed, 1])
    symmetric = [group for group in groups if group.number > 1]
    for group in sorted(symmetric, key=lambda _: rng.random() < descend):
        placed = place_guests(template, group)
        if placed is not None:
            return placed
    return template


def _choose(numbers: np.ndarray, group: HostGroup, rng: np.random.Generator) -> list[tuple[int, WyckoffSite]] | None:
    """(atomic number, site) of orbits that hold exactly guests of these atomic numbers; None if the draw fails."""
    chosen: list[tuple[int, WyckoffSite]] = []
    for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
        taken = {id(site) for _, site in chosen if site.n_free == 0}
        sites = [site for site in group.sites_with_room(int(number), int(count)) if id(site) not in taken]
        times = draw_orbits([(site.multiplicity, site.n_free == 0) for site in sites], int(count), rng)
        if times is None:
            return None
        chosen += [(int(number), site) for site, n in zip(sites, times, strict=True) for _ in range(n)]
    return chosen


def draw_orbits(sites: Sequence[tuple[int, bool]], count: int, rng: np.random.Generator) -> list[int] | None:
    """How often to fill each site so that the multiplicities add up to ``count``; None if that is impossible.

    Every such choice of k orbits has a probability proportional to ``PARSIMONY**k``.

    Args:
        sites: multiplicity of each, and whether it can be filled only once.
        count: number of guests.
        rng: the only source of randomness.
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
    template: Template, group: HostGroup, sites: Sequence[WyckoffSite], points: np.ndarray, numbers: np.ndarray
) -> Template:
    """The template with its guests at these points, and the projector in the order of the template's atoms."""
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
    return replace(template, crystal=crystal, start_here=True, projector=Projector(projector.rotations, targets))
