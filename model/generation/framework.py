"""Extracting symmetric host frameworks from a relaxed crystal: which elements to remove, and at which tolerances."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Element

from model.crystals.crystal import Crystal
from model.crystals.matching import distance_fingerprints
from model.crystals.neighbors import pair_distances
from model.crystals.screening import ScreenSettings, too_close
from model.symmetry.space_group import Refined, SpaceGroup, refine_onto, symmetry_dataset

# symprec (Å) and angle tolerance (degrees); the range is the paper's, the steps are those of its public code
DEFAULT_TOLERANCES = ((0.1, 10.0), (0.2, 15.0), (0.5, 15.0), (0.8, 15.0), (1.0, 20.0), (1.5, 30.0), (2.0, 30.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Framework:
    """A symmetric host and the guests it was found with.

    Attributes:
        host: the framework without guests.
        guests: atoms of each guest element for this cell; host and guests together have the parent's composition.
        space_group: of the host, with the tolerances at which it was found.
        displacement: Å, largest displacement of a host atom by symmetrisation.
        cell_ratio: number of cells of this framework in the parent's cell.
        fingerprint: of the host, see `model.crystals.matching.distance_fingerprints`.
    """

    host: Crystal
    guests: dict[str, int]
    space_group: SpaceGroup
    displacement: float
    cell_ratio: int
    fingerprint: np.ndarray


def extract_frameworks(
    crystal: Crystal,
    guests: Collection[str],
    tolerances: Sequence[tuple[float, float]] = DEFAULT_TOLERANCES,
    *,
    skip: Collection[int] = (1,),
    screening: ScreenSettings | None = None,
) -> list[Framework]:
    """Remove the guests and find the symmetry of the rest at every tolerance.

    Args:
        crystal: a relaxed crystal.
        guests: elements to remove.
        tolerances: (symprec in Å, angle tolerance in degrees), tight to loose.
        skip: space groups that are not worth a framework; the paper skips 1 and 2 for Zn-P-S, 1, 2 and 6 for Li-Si.
        screening: limits below which atoms of a symmetrised host are too close.

    Returns:
        one framework for each space group that is found, the tightest tolerance first.

    Raises:
        ValueError: no guests are given, the crystal does not contain one of them, or it contains nothing else.

    Example:
        >>> spread = 0.05 * np.array([[0, 0, 0], [0, 0, 0], [0.1, 0, 0]])
        >>> crystal = Crystal(4 * np.eye(3), spread + [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]], [55, 17, 3])
        >>> for framework in extract_frameworks(crystal, ["Li"]):
        ...     print(framework.space_group, framework.host.formula, framework.guests)
        Pm-3m (221) CsCl {'Li': 1}
    """
    host, counts = split(crystal, guests)
    seen: set[int] = set(skip)
    tried: set[tuple[int, int]] = set()  # number of the group, and of its operations in this cell
    frameworks = []
    for symprec, angle in tolerances:
        dataset = symmetry_dataset(host, symprec, angle)
        kind = None if dataset is None else (dataset.number, len(dataset.rotations))
        if kind is None or kind in tried:
            continue
        tried.add(kind)
        refined = refine_onto(host, dataset, symprec, angle)
        if refined is None or refined.space_group.number in seen or too_close(refined.crystal, screening):
            continue
        seen.add(refined.space_group.number)
        frameworks.append(_framework(refined, counts))
    return frameworks


def split(crystal: Crystal, guests: Collection[str]) -> tuple[Crystal, dict[str, int]]:
    """Separate host and guests: the host in the same cell, and the count of each guest element."""
    if isinstance(guests, str) or not guests:
        raise ValueError(f"guests must be a list of elements such as ['Li'], got {guests!r}")
    symbols = np.array(crystal.symbols)
    counts = {element: int((symbols == element).sum()) for element in sorted(set(guests))}
    absent = [element for element, count in counts.items() if count == 0]
    if absent:
        raise ValueError(f"{crystal.formula} has no {', '.join(absent)} to remove: choose from {crystal.composition}")
    host = crystal.select(~np.isin(symbols, list(counts)))
    if len(host) == 0:
        raise ValueError(f"without {', '.join(counts)} nothing of {crystal.formula} is left: keep an element as host")
    return host, counts


def effective_coordination(crystal: Crystal, *, cutoff: float = 6.0) -> np.ndarray:
    """(n,) effective coordination numbers (Hoppe, Z. Kristallogr. 150, 23 (1979)).

    ECoN_a = Σ_b exp(1 - (d_ab / d_a)⁶) with d_a the mean of the distances d_ab under the same weights, found by
    iteration from the shortest: 6 in rock salt, 4 in diamond. Atoms further than ``cutoff`` Å count nothing.
    """
    first, _, distance = pair_distances(crystal, cutoff=cutoff)
    mean = np.full(len(crystal), np.inf)
    np.minimum.at(mean, first, distance)
    for _ in range(10):
        weight = np.exp(1 - (distance / mean[first]) ** 6)
        total = np.bincount(first, weight, len(crystal))
        mean = np.divide(np.bincount(first, weight * distance, len(crystal)), total, out=mean, where=total > 0)
    return total


def coordination_spread(crystals: Sequence[Crystal]) -> dict[str, float]:
    """Spread of the local environments of each element.

    The standard deviation of the effective coordination number over the element's atoms in all crystals. Host
    polyhedra such as PS4 keep their coordination from site to site and from crystal to crystal, mobile species do not.
    """
    if not crystals:
        raise ValueError("at least one crystal is needed to compare local environments, got none")
    coordination = np.concatenate([effective_coordination(crystal) for crystal in crystals])
    symbols = np.concatenate([crystal.symbols for crystal in crystals])
    return {str(symbol): float(coordination[symbols == symbol].std()) for symbol in np.unique(symbols)}


def choose_guest(crystals: Crystal | Sequence[Crystal], guests: Collection[str] | None = None) -> list[str]:
    """The elements to remove: those given, otherwise the element e with the largest

        (spread(e) + 0.1) / χ(e)

    with `coordination_spread` and Pauling's electronegativity χ: of two elements with equal spread, the more
    electropositive one is more mobile, and 0.1 lets χ decide if high symmetry leaves no spread. The choice is more
    reliable with many crystals of a system.

    Raises:
        ValueError: there is only one element, so that nothing would be left as the host.
    """
    if guests:
        return sorted(set(guests))
    spread = coordination_spread([crystals] if isinstance(crystals, Crystal) else list(crystals))
    if len(spread) < 2:
        raise ValueError(f"only {', '.join(spread)} is present: a host and a guest need two elements")
    return [max(spread, key=lambda element: (spread[element] + 0.1) / _electronegativity(element))]


def _electronegativity(element: str) -> float:
    """Pauling's value; noble gases without one count as the most electronegative."""
    return float(Element(element).data.get("X") or 4.0)


def _framework(refined: Refined, counts: dict[str, int]) -> Framework:
    """In the primitive cell if the guests can be shared out among those of the parent, else in the parent's cell."""
    ratio = refined.cell_ratio
    shared = all(count % ratio == 0 for count in counts.values())
    (fingerprint,) = distance_fingerprints([refined.crystal])
    return Framework(
        host=refined.crystal if shared else refined.parent.wrapped(),
        guests={element: count // ratio for element, count in counts.items()} if shared else dict(counts),
        space_group=refined.space_group,
        displacement=refined.displacement,
        cell_ratio=ratio if shared else 1,
        fingerprint=fingerprint,
    )
