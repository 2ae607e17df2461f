"""Guests into one given host: sample, screen, relax, rank. What `hostguide inpaint` does, as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.core import Element, Structure

from model.crystal import Crystal
from model.relax import Relaxation
from model.sampler import AncestralSettings, Blank, SamplerSettings
from model.stages import Generator, Rejected, Relaxer, usable
from model.symmetry import space_group


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
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        structure = Structure.from_file(path)
    except Exception as error:  # pymatgen's parsers raise whatever the format's library raises
        raise ValueError(f"{path} cannot be read as a crystal: {error}") from error
    return Crystal.from_pymatgen(structure)


def make_blanks(host: Crystal, guests: Mapping[str, int], *, samples: int, seed: int) -> list[Blank]:
    """Blanks of the host with ``guests`` (element -> count) to be placed, each with a seed of its own.

    Raises:
        ValueError: an unknown element, a count below one, or no sample asked for.
    """
    for element, count in guests.items():
        if not Element.is_valid_symbol(element):
            raise ValueError(f"{element!r} is not an element")
        if count < 1:
            raise ValueError(f"count of {element} must be at least 1, got {count}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    numbers = np.repeat([Element(element).Z for element in guests], list(guests.values()))
    crystal = host.join(Crystal(host.lattice, np.zeros((len(numbers), 3)), numbers))
    guest = np.arange(len(crystal)) >= len(host)
    seeds = np.random.default_rng(seed).integers(2**62, size=samples)
    return [Blank(crystal, guest, int(one)) for one in seeds]


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
        for blank, outcome in zip(some, relaxer.relax(crystals, free), strict=True):
            if isinstance(outcome, Rejected) or not usable(outcome):
                dropped.append(outcome.reason)
            else:
                group = space_group(outcome.final)
                filled.append(Filled(outcome.final, blank.guest, outcome, group.symbol if group else "P1"))
        report("relaxed", len(some))
    return sorted(filled, key=lambda one: one.relaxation.energy_final), dropped
