"""Guest paths of `hostguide analyse`: the sites of a guest, the hops between them, percolation and barriers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from pymatgen.core import Element, PeriodicSite, Structure

from model.analysis.migration import Barrier, BarrierSettings, MigrationNetwork, barrier, migration_network
from model.crystals.crystal import Crystal
from model.crystals.periodic_images import shortest_steps
from model.crystals.screening import too_close
from model.crystals.voids import guest_sites
from model.potentials.interface import Potential
from model.symmetry.space_group import fractional_operations, refine
from search.studies.analyse import new_figure, save_figure

NARROWEST = 1.5  # Å, smallest radius of a void that can hold a guest
ONE_SITE = 0.7  # Å, sites closer than this are merged


@dataclass(frozen=True, eq=False, kw_only=True)
class Percolation:
    """Migration paths of a guest through a crystal.

    Attributes:
        network: sites and hops.
        lengths: dimension (1, 2, 3) -> Å, longest hop needed to percolate in that many dimensions, through no atom.
        directions: dimension -> where these hops lead, such as ``along [001]``; see `MigrationNetwork.direction`.
        barriers: index of a hop -> its barrier.
        highest: dimension -> eV, highest barrier on the way; only where all hops needed were computed.
        problems: reasons why barriers could not be computed.
    """

    network: MigrationNetwork
    lengths: dict[int, float]
    directions: dict[int, str]
    barriers: dict[int, Barrier]
    highest: dict[int, float]
    problems: list[str]


def percolation(
    crystal: Crystal,
    guest: str,
    *,
    max_length: float = 4.5,
    potential: Potential | None = None,
    settings: BarrierSettings | None = None,
    equal_sites: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Percolation:
    """Hops of a guest, the dimensions in which they percolate and, with a potential, their barriers.

    Args:
        crystal: with its guests; without any, guest sites are placed in its voids.
        guest: element.
        max_length: maximum length of a hop, Å.
        potential: computes the barriers of the hops needed to percolate in one dimension.
        settings: of the barriers.
        equal_sites: include all sites equivalent under the host's symmetry, see `with_equal_sites`.
        say: is told what is being done.
    """
    filled = with_equal_sites(crystal, guest) if equal_sites else with_sites(crystal, guest)
    say(f"{filled.symbols.count(guest)} sites of {guest}: looking for hops up to {max_length:g} Å")
    network = migration_network(filled, guest, max_length=max_length)
    open_lengths = [np.inf if hop.blocked else hop.length for hop in network.hops]
    lengths = network.percolation_thresholds(open_lengths)
    barriers: dict[int, Barrier] = {}
    problems = []
    if potential is not None:
        for index in (i for i, length in enumerate(open_lengths) if length <= lengths.get(1, 0.0)):
            say(f"barrier of hop {index}, {network.hops[index].length:.2f} Å")
            try:
                barriers[index] = barrier(network, index, potential, settings)
            except ValueError as error:
                problems.append(str(error))
    costs = [
        max(barriers[i].forward, barriers[i].backward) if i in barriers else np.inf for i in range(len(network.hops))
    ]
    highest = network.percolation_thresholds(costs)
    directions = {
        dimension: network.direction(some)
        for dimension, length in lengths.items()
        if network.dimensions(some := [i for i, own in enumerate(open_lengths) if own <= length]) == dimension
    }
    return Percolation(
        network=network, lengths=lengths, directions=directions, barriers=barriers, highest=highest, problems=problems
    )


def draw_barriers(found: Mapping[str, Barrier], path: Path) -> None:
    """Plot energies along hops, by name, against the path length of the moving atom."""
    figure, (axis,) = new_figure(1)
    for name, one in found.items():
        axis.plot(path_length(one), one.energies, marker="o", markersize=3, label=name)
    axis.set(xlabel="path length (Å)", ylabel="energy (eV)")
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def path_length(found: Barrier) -> np.ndarray:
    """Path length (images + 2,) in Å of the moving atom up to each image of a hop."""
    steps = [
        shortest_steps(after.fractional[-1] - before.fractional[-1], before.lattice) @ before.lattice
        for before, after in pairwise(found.images)
    ]
    return np.cumsum([0.0, *(float(np.linalg.norm(step)) for step in steps)])


def with_equal_sites(crystal: Crystal, guest: str) -> Crystal:
    """The crystal with a guest on every site that is equivalent to a guest site under the empty host's symmetry.

    Sites closer than `ONE_SITE` are merged at their mean position. The host is symmetrised (within 0.1 Å).

    Raises:
        ValueError: the crystal contains no guest or nothing else, or no space group is found.
    """
    mask = np.array(crystal.symbols) == guest
    if mask.all() or not mask.any():
        raise ValueError(f"{crystal.formula} must contain {guest} and a host, whose symmetry gives equivalent sites")
    refined = refine(crystal.select(~mask))
    if refined is None:
        raise ValueError(f"spglib finds no space group of {crystal.select(~mask).formula}")
    host = refined.parent
    images = [
        crystal.fractional[mask] @ rotation.T + translation
        for rotation, translation in zip(*fractional_operations(host), strict=True)
    ]
    return _with_guests(host, guest, one_site(np.concatenate(images), host.lattice))


def one_site(places: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """(k, 3) fractional places (n, 3), those closer than `ONE_SITE` to one before them merged at their mean."""
    sites: list[list[np.ndarray]] = []
    for place in places:
        for group in sites:
            step = shortest_steps(place - group[0], lattice)
            if np.linalg.norm(step @ lattice) < ONE_SITE:
                group.append(group[0] + step)
                break
        else:
            sites.append([place])
    return np.array([np.mean(group, axis=0) for group in sites]) % 1.0


def with_partial_sites(structure: Structure, guest: str) -> tuple[Crystal, list[str]]:
    """A crystal with a guest on every site that the guest occupies wholly or in part, and what was assumed.

    Sites closer than `ONE_SITE`, such as the two halves of a split site, are merged at their mean. A site of the host
    that several elements share is taken as filled with the most frequent one, one that is less than half full as empty.

    Raises:
        ValueError: the guest occupies no site, or the other atoms overlap: they must be ordered first.
    """
    remedy = "`hostguide inpaint FILE` orders them first"
    mine = np.array([guest in _shares(site) for site in structure], dtype=bool)
    if not mine.any():
        formula = structure.composition.reduced_formula
        raise ValueError(f"{formula} has partially occupied sites, but none of {guest}: {remedy}")
    others = [site for site, own in zip(structure, mine, strict=True) if not own]
    notes = [_assumed(site) for site in others if not site.is_ordered]
    kept = [site for site in others if site.species.num_atoms >= 0.5]
    numbers = np.array([Element(_main_element(site)).Z for site in kept], dtype=int)
    host = Crystal(structure.lattice.matrix, np.array([site.frac_coords for site in kept]).reshape(-1, 3), numbers)
    if too_close(host):
        raise ValueError(f"atoms of {host.formula} on partially occupied sites overlap: {remedy}")
    filled = _with_guests(host, guest, one_site(structure.frac_coords[mine], host.lattice))
    atoms = sum(_shares(site).get(guest, 0.0) for site in structure)
    sites = f"{atoms:g} {guest} on {filled.symbols.count(guest)} sites; tables and figures count sites, not atoms"
    return filled, [sites, *dict.fromkeys(notes)]


def _assumed(site: PeriodicSite) -> str:
    content = " + ".join(f"{share:g} {symbol}" for symbol, share in _shares(site).items())
    return f"a site with {content} is taken as {_main_element(site) if site.species.num_atoms >= 0.5 else 'empty'}"


def _main_element(site: PeriodicSite) -> str:
    shares = _shares(site)
    return max(shares, key=lambda symbol: shares[symbol])


def _shares(site: PeriodicSite) -> dict[str, float]:
    """Occupancy of each element on a site."""
    return {str(element): float(n) for element, n in site.species.element_composition.items()}


def _with_guests(host: Crystal, guest: str, places: np.ndarray) -> Crystal:
    return host.join(Crystal(host.lattice, places, np.full(len(places), Element(guest).Z)))


def with_sites(crystal: Crystal, guest: str) -> Crystal:
    """The crystal itself, or, if it contains no guest, the crystal with a guest in each of its `guest_sites`.

    Raises:
        ValueError: no void is wide enough.
    """
    if guest in crystal.symbols:
        return crystal
    sites = guest_sites(crystal, min_radius=NARROWEST)
    if not sites:
        raise ValueError(f"{crystal.formula} has no void with a radius above {NARROWEST} Å for {guest}")
    return _with_guests(crystal, guest, np.array([site.fractional for site in sites]))
