"""Placing guests into a given host: sample, screen, relax, rank. The functions behind `hostguide inpaint`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Element

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals
from model.crystals.screening import ScreenSettings, closest_allowed
from model.diffusion.sampler import AncestralSettings, SamplerSettings, Template
from model.generation.disorder import Disordered, order
from model.generators.inpainting import Inpainting
from model.reasons import Reason
from model.relaxation.polish import Polished, polish
from model.relaxation.relax import Relaxation
from model.stages import CrystalMaker, Rejected, Relaxer, may_be_ranked
from model.symmetry.space_group import space_group

SHORTLIST = 8  # arrangements whose energy is computed, per arrangement that is relaxed
PARENTS = 4  # number of arrangements from which a round of refinement starts


@dataclass(frozen=True, eq=False)
class Filled:
    """A host with its guests, relaxed.

    Attributes:
        crystal: relaxed crystal.
        guest: (n,) bool, which of its atoms are guests.
        relaxation: result of its relaxation, energies in eV/atom.
        space_group: symbol of the relaxed crystal's space group.
    """

    crystal: Crystal
    guest: np.ndarray
    relaxation: Relaxation
    space_group: str


@dataclass(frozen=True)
class Region:
    """A slab of the cell between two fractions of c; if ``high`` is below ``low``, it wraps around the cell boundary.

    Raises:
        ValueError: the fractions are equal or not between 0 and 1.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 <= self.low <= 1 and 0 <= self.high <= 1 and self.low != self.high):
            raise ValueError(f"a region needs two different fractions of c from 0 to 1, got {self.low} and {self.high}")

    @property
    def width(self) -> float:
        """Its thickness as a fraction of c."""
        return (self.high - self.low) % 1 or 1.0

    def holds(self, fractional: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the positions (n, 3) lie in the region."""
        return (fractional[:, 2] - self.low) % 1 < self.width

    def scattered(self, crystal: Crystal, atoms: np.ndarray, seed: int) -> Crystal:
        """The crystal with ``atoms`` ((n,) bool) at random positions in the region."""
        anywhere = np.random.default_rng(seed).random((len(crystal), 3))
        anywhere[:, 2] = (self.low + self.width * anywhere[:, 2]) % 1
        return crystal.replace(fractional=np.where(atoms[:, None], anywhere, crystal.fractional))


def make_templates(
    host: Crystal, guests: Mapping[str, int], *, samples: int, seed: int, region: Region | None = None
) -> list[Template]:
    """Templates of the host with ``guests`` (element -> count) to be placed, each with its own seed.

    If a region is given, the host's atoms in it are guests too, and all guests start at random positions in it.

    Raises:
        ValueError: unknown element, count below one, more guests than there is room for, fewer than one sample, or a
            region that leaves no atoms to place or no host.
    """
    for element, count in guests.items():
        if not Element.is_valid_symbol(element):
            raise ValueError(f"{element!r} is not an element; use symbols such as Li")
        if count < 1:
            raise ValueError(f"count of {element} must be at least 1, got {count}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    taken = region.holds(host.fractional) if region else np.zeros(len(host), dtype=bool)
    numbers = np.repeat([Element(element).Z for element in guests], list(guests.values())).astype(int)
    crystal = host.join(Crystal(host.lattice, np.zeros((len(numbers), 3)), numbers))
    guest = np.concatenate([taken, np.ones(len(numbers), dtype=bool)])
    if region and (taken.all() or not guest.any()):
        raise ValueError(
            f"{taken.sum()} of the {len(host)} atoms of {host.formula} lie between {region.low} and {region.high} of "
            f"c: {'no host is left' if taken.all() else 'there is nothing to place'}. Choose another region"
        )
    _check_room(host.select(~taken), crystal.numbers[guest])
    seeds = [int(one) for one in np.random.default_rng(seed).integers(2**62, size=samples)]
    if region is None:
        return [Template(crystal=crystal, guest=guest, seed=one) for one in seeds]
    return [
        Template(crystal=region.scattered(crystal, guest, one), guest=guest, seed=one, start_here=True) for one in seeds
    ]


def _check_room(host: Crystal, guests: np.ndarray) -> None:
    """Raise ValueError if the guests (atomic numbers) cannot fit into the host."""
    needed = _packed_volume(host.numbers), _packed_volume(guests)
    if sum(needed) <= host.volume:
        return
    fit = max(0, int((host.volume - needed[0]) / needed[1] * len(guests)))
    raise ValueError(
        f"{len(guests)} guests do not fit into {host.formula}: its cell of {host.volume:.0f} Å³ contains {len(host)} "
        f"atoms and has room for at most {fit} such guests, touching each other. Give a smaller --count, or a larger "
        "cell with --supercell"
    )


def most_that_fit(host: Crystal, guest: int) -> int:
    """Guests (atomic number) for which a host has room if they touch each other."""
    return max(0, int((host.volume - _packed_volume(host.numbers)) / _packed_volume(np.array([guest]))))


def _packed_volume(numbers: np.ndarray) -> float:
    """Volume (Å³) of randomly close-packed (64 %) spheres that touch at the smallest distance that screening allows."""
    diameter = closest_allowed(numbers, numbers, ScreenSettings())
    return float((np.pi / 6 * diameter**3).sum() / 0.64)


def fill(
    templates: Sequence[Template],
    maker: CrystalMaker,
    relaxer: Relaxer,
    *,
    sampler: SamplerSettings | None = None,
    free_guests_only: bool = False,
    batch: int = 8,
    report: Callable[[str, int], None] = lambda stage, done: None,
) -> tuple[list[Filled], list[str]]:
    """Sample and relax.

    Args:
        templates: from `make_templates`.
        maker, relaxer: stages with the models loaded.
        sampler: its settings (default: the few-step ancestral sampler).
        free_guests_only: keep the host's atoms fixed while relaxing; whether the cell relaxes depends on the settings
            of the relaxer.
        batch: crystals per batch.
        report: called with a stage (placed or relaxed) and a number of crystals.

    Returns:
        the filled hosts, lowest energy first, and the reasons why others were dropped.
    """
    attempts = [(template, template.guest) for template in templates]
    return _fill(
        attempts, maker, relaxer, sampler=sampler, free_guests_only=free_guests_only, batch=batch, report=report
    )


def refine_fillings(
    found: Sequence[Filled],
    maker: CrystalMaker,
    relaxer: Relaxer,
    *,
    samples: int,
    seed: int | Sequence[int],
    sampler: SamplerSettings | None = None,
    free_guests_only: bool = False,
    batch: int = 8,
    report: Callable[[str, int], None] = lambda stage, done: None,
) -> tuple[list[Filled], list[str]]:
    """One round of refinement: in the best arrangements, neighbouring guests are removed and placed again.

    Each attempt starts from one of the `PARENTS` best distinct arrangements after relaxation, and removes one of its
    guests and those nearest to it, from one to all of them at random. The other guests stay while the network places
    the removed ones again. If the host relaxed with its guests, the relaxed host is used.

    Args:
        found: from `fill` or from an earlier round.
        maker, relaxer, sampler, free_guests_only, batch, report: as for `fill`.
        samples: number of attempts.
        seed: determines which guests are removed, and the noise.

    Returns:
        ``found`` and the new arrangements without duplicates, lowest energy first, and the reasons why others were
        dropped.
    """
    rng = np.random.default_rng(seed)
    parents = _distinct(found)[:PARENTS]
    attempts = []
    for index in range(samples):
        parent = parents[index % len(parents)]
        again = _neighbouring(parent, rng)
        attempts.append((Template(crystal=parent.crystal, guest=again, seed=int(rng.integers(2**62))), parent.guest))
    new, dropped = _fill(
        attempts, maker, relaxer, sampler=sampler, free_guests_only=free_guests_only, batch=batch, report=report
    )
    every = sorted([*found, *new], key=_energy)
    kept = _distinct(every)
    return kept, dropped + [Reason.DUPLICATE] * (len(every) - len(kept))


def polish_fillings(
    found: Sequence[Filled], relaxer: Relaxer, *, free_guests_only: bool = False
) -> tuple[list[Filled], list[str]]:
    """Polish the distinct arrangements, see `model.relaxation.polish`, and list each crystal that results once.

    An arrangement whose polishing does not converge stays as it is.

    Args:
        found: from `fill`, `refine_fillings` or `fill_sites`.
        relaxer, free_guests_only: as for these.

    Returns:
        the polished arrangements, lowest energy first, and the reasons why others were dropped.
    """
    once = _distinct(found)
    free = [one.guest if free_guests_only else None for one in once]
    polished = polish([one.crystal for one in once], relaxer.potential, relaxer.relaxation, free=free)
    done = [_filled(one.guest, after) if after.converged else one for one, after in zip(once, polished, strict=True)]
    every = sorted(done, key=_energy)
    kept = _distinct(every)
    return kept, [Reason.DUPLICATE] * (len(found) - len(kept))


def _filled(guest: np.ndarray, outcome: Relaxation) -> Filled:
    group = outcome.space_group if isinstance(outcome, Polished) else space_group(outcome.final)
    return Filled(outcome.final, guest, outcome, group.symbol if group else "P1")


def _fill(
    attempts: Sequence[tuple[Template, np.ndarray]],
    maker: CrystalMaker,
    relaxer: Relaxer,
    *,
    sampler: SamplerSettings | None,
    free_guests_only: bool,
    batch: int,
    report: Callable[[str, int], None],
) -> tuple[list[Filled], list[str]]:
    """Sample and relax templates, each given with the mask of all its guests, possibly more than those to be placed."""
    filled: list[Filled] = []
    dropped: list[str] = []
    for start in range(0, len(attempts), batch):
        templates, guests = zip(*attempts[start : start + batch], strict=True)
        crystals = _inpainted(maker, templates, sampler or AncestralSettings())
        report("placed", len(templates))
        free = guests if free_guests_only else None
        _collect(list(zip(crystals, guests, strict=True)), relaxer.relax(crystals, free), filled, dropped)
        report("relaxed", len(templates))
    return sorted(filled, key=_energy), dropped


def _inpainted(maker: CrystalMaker, templates: Sequence[Template], sampler: SamplerSettings) -> list[Crystal]:
    made = maker.generate(templates, [Inpainting.name] * len(templates), [sampler] * len(templates))
    return [one.crystal for one in made]


def _energy(one: Filled) -> float:
    return one.relaxation.energy_final


def _distinct(filled: Sequence[Filled]) -> list[Filled]:
    """The first of each distinct crystal."""
    known = DistinctCrystals(RELAXED)
    return [one for one in filled if known.add(one.crystal, energy=_energy(one)) is None]


def _neighbouring(one: Filled, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: a random guest and a random number of the guests nearest to it."""
    guests = np.flatnonzero(one.guest)
    distance = one.crystal.select(one.guest).to_pymatgen().distance_matrix[rng.integers(len(guests))]
    chosen = guests[np.argsort(distance, kind="stable")[: rng.integers(1, len(guests) + 1)]]
    return np.isin(np.arange(len(one.guest)), chosen)


def fill_sites(
    disordered: Disordered,
    relaxer: Relaxer,
    *,
    samples: int,
    seed: int,
    free_guests_only: bool = False,
    batch: int = 8,
    report: Callable[[str, int], None] = lambda stage, done: None,
) -> tuple[list[Filled], list[str]]:
    """Order a crystal with partially occupied sites: relax the best of many arrangements.

    `SHORTLIST` times ``samples`` arrangements are made; those of lowest energy before relaxation are relaxed.

    Args:
        disordered: the crystal.
        relaxer: stage with the potential loaded.
        samples: number of arrangements to relax.
        seed: determines which arrangements are made if there are too many.
        free_guests_only: relax only the atoms on partially occupied sites.
        batch: crystals per batch.
        report: called with a stage (placed or relaxed) and a number of crystals.

    Returns:
        as for `fill`.
    """
    crystals = [disordered.crystal(numbers) for numbers in order(disordered, SHORTLIST * samples, seed=seed)]
    energies = [one.energy for one in relaxer.potential.evaluate([crystal for crystal, _ in crystals])]
    best = [crystals[i] for i in np.argsort(energies, kind="stable")[:samples]]  # NaN goes last
    report("placed", len(best))
    filled: list[Filled] = []
    dropped: list[str] = []
    for start in range(0, len(best), batch):
        some = best[start : start + batch]
        free = [guest for _, guest in some] if free_guests_only else None
        _collect(some, relaxer.relax([crystal for crystal, _ in some], free), filled, dropped)
        report("relaxed", len(some))
    return sorted(filled, key=_energy), dropped


def _collect(
    placed: Sequence[tuple[Crystal, np.ndarray]],
    outcomes: Sequence[Relaxation | Rejected],
    filled: list[Filled],
    dropped: list[str],
) -> None:
    for (_, guest), outcome in zip(placed, outcomes, strict=True):
        if isinstance(outcome, Rejected) or not may_be_ranked(outcome):
            dropped.append(outcome.reason)
        else:
            filled.append(_filled(guest, outcome))
