"""Guests into one given host: sample, screen, relax, rank. What `hostguide inpaint` does, as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.core import Element, Structure

from model.crystal import Crystal
from model.ordering import Disordered, order
from model.relax import Relaxation
from model.sampler import AncestralSettings, Blank, SamplerSettings
from model.screen import ScreenSettings, closest_allowed
from model.stages import Generator, Rejected, Relaxer, usable
from model.symmetry import space_group

SHORTLIST = 8  # arrangements whose energy is computed, for each that is relaxed


@dataclass(frozen=True, eq=False)
class Filled:
    """A host with its guests, relaxed.

    Attributes:
        crystal: relaxed crystal.
        guest: (n,) bool, which of its atoms are guests.
        relaxation: how it got there, energies in eV/atom.
        space_group: symbol of the relaxed crystal's space group.
    """

    crystal: Crystal
    guest: np.ndarray
    relaxation: Relaxation
    space_group: str


def read_host(path: str | Path) -> Crystal:
    """Read a host from any file that pymatgen understands.

    Raises:
        ValueError: no such file, no crystal in it, or partially occupied sites.
    """
    return Crystal.from_pymatgen(read_structure(path))


def read_structure(path: str | Path) -> Structure:
    """The crystal of a file, partially occupied sites and all.

    Raises:
        ValueError: no such file, or no crystal in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        return Structure.from_file(path)
    except Exception as error:  # pymatgen's parsers raise whatever the format's library raises
        raise ValueError(f"{path} cannot be read as a crystal: {error}") from error


def make_blanks(host: Crystal, guests: Mapping[str, int], *, samples: int, seed: int) -> list[Blank]:
    """Blanks of the host with ``guests`` (element -> count) to be placed, each with a seed of its own.

    Raises:
        ValueError: an unknown element, a count below one, more guests than there is room for, or no sample asked for.
    """
    for element, count in guests.items():
        if not Element.is_valid_symbol(element):
            raise ValueError(f"{element!r} is not an element")
        if count < 1:
            raise ValueError(f"count of {element} must be at least 1, got {count}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    numbers = np.repeat([Element(element).Z for element in guests], list(guests.values()))
    _check_room(host, numbers)
    crystal = host.join(Crystal(host.lattice, np.zeros((len(numbers), 3)), numbers))
    guest = np.arange(len(crystal)) >= len(host)
    seeds = np.random.default_rng(seed).integers(2**62, size=samples)
    return [Blank(crystal, guest, int(one)) for one in seeds]


def _check_room(host: Crystal, guests: np.ndarray) -> None:
    """Refuse guests (atomic numbers) that no arrangement can hold."""
    needed = _packed_volume(host.numbers), _packed_volume(guests)
    if sum(needed) <= host.volume:
        return
    fit = max(0, int((host.volume - needed[0]) / needed[1] * len(guests)))
    raise ValueError(
        f"{len(guests)} guests do not fit into {host.formula}: its cell of {host.volume:.0f} Å³ holds {len(host)} "
        f"atoms and has room for {fit} such guests at most, touching each other. Give a smaller --count, or a larger "
        "cell with --supercell"
    )


def _packed_volume(numbers: np.ndarray) -> float:
    """Å³ of spheres that touch at the distance where screening begins to reject, in random close packing (64 %)."""
    diameter = closest_allowed(numbers, numbers, ScreenSettings())
    return float((np.pi / 6 * diameter**3).sum() / 0.64)


def fill(
    blanks: Sequence[Blank],
    generator: Generator,
    relaxer: Relaxer,
    *,
    sampler: SamplerSettings | None = None,
    free_guests_only: bool = False,
    batch: int = 8,
    report: Callable[[str, int], None] = lambda stage, done: None,
) -> tuple[list[Filled], list[str]]:
    """Sample and relax.

    Args:
        blanks: from `make_blanks`.
        generator, relaxer: they know the models.
        sampler: the few-step ancestral one when left out.
        free_guests_only: keep the host's atoms fixed while relaxing; the relaxer's settings decide about the cell.
        batch: crystals at a time.
        report: called with a stage (placed or relaxed) and a number of crystals.

    Returns:
        the filled hosts, lowest energy first, and the reasons why others were dropped.
    """
    filled: list[Filled] = []
    dropped: list[str] = []
    for start in range(0, len(blanks), batch):
        some = blanks[start : start + batch]
        crystals = generator.generate(some, sampler or AncestralSettings()).crystals
        report("placed", len(some))
        free = [blank.guest for blank in some] if free_guests_only else None
        placed = [(crystal, blank.guest) for crystal, blank in zip(crystals, some, strict=True)]
        _collect(placed, relaxer.relax(crystals, free), filled, dropped)
        report("relaxed", len(some))
    return sorted(filled, key=lambda one: one.relaxation.energy_final), dropped


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
    """Order a crystal with partially occupied sites: the best of many arrangements by energy, relaxed.

    `SHORTLIST` times as many arrangements as asked for are made and their energies computed as they are.

    Args:
        disordered: the crystal.
        relaxer: knows the potential.
        samples: arrangements to relax.
        seed: decides which arrangements are made where there are too many.
        free_guests_only: relax only the atoms on partially occupied sites.
        batch: crystals at a time.
        report: called with a stage (placed or relaxed) and a number of crystals.

    Returns:
        as `fill`.
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
    return sorted(filled, key=lambda one: one.relaxation.energy_final), dropped


def _collect(
    placed: Sequence[tuple[Crystal, np.ndarray]],
    outcomes: Sequence[Relaxation | Rejected],
    filled: list[Filled],
    dropped: list[str],
) -> None:
    for (_, guest), outcome in zip(placed, outcomes, strict=True):
        if isinstance(outcome, Rejected) or not usable(outcome):
            dropped.append(outcome.reason)
        else:
            group = space_group(outcome.final)
            filled.append(Filled(outcome.final, guest, outcome, group.symbol if group else "P1"))
