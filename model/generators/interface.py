"""What a generator is: what it starts from, how it proposes a candidate, and how it makes crystals of proposals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import LatticeRanges
from model.diffusion.sampler import (
    AncestralSettings,
    HeunSettings,
    PredictorCorrectorSettings,
    SamplerSettings,
    Samples,
    Template,
)
from model.generation.wyckoff_placement import HostGroup
from model.settings import Settings

AnySampler = Annotated[PredictorCorrectorSettings | HeunSettings | AncestralSettings, Field(discriminator="kind")]
Guests = tuple[tuple[str, int], ...]  # element and count, sorted by element


class Start(StrEnum):
    """What a generator starts from."""

    NOTHING = "nothing"  # a cell formula, of which it makes cell and places
    CRYSTAL = "crystal"  # a relaxed crystal, which it changes
    HOST = "host"  # a framework, which it fills with guests


class Role(StrEnum):
    """What a candidate is in a search."""

    NEW = "new"  # made from nothing, or by changing a crystal
    FROM_HOST = "from_host"  # guests in a framework


@dataclass(frozen=True, kw_only=True, eq=False)
class NewCell:
    """`Start.NOTHING`.

    Attributes:
        cell: atoms.
        volume: Å³ of the whole cell.
        bravais: chooses the type of lattice, for example ``cF``; called by generators that need one.
        ranges: of the lattice's ratios and angles.
    """

    cell: CellFormula
    volume: float
    bravais: Callable[[], str]
    ranges: LatticeRanges


@dataclass(frozen=True, kw_only=True, eq=False)
class ParentCrystal:
    """`Start.CRYSTAL`.

    Attributes:
        crystal: relaxed.
        cell: atoms that the changed crystal is to have.
        growth: ratio of the estimated volumes, changed crystal over parent.
        bravais: type of lattice in which the parent was made, if it was.
    """

    crystal: Crystal
    cell: CellFormula
    growth: float
    bravais: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class EmptyHost:
    """`Start.HOST`.

    Attributes:
        host: framework.
        guests: to be put into it.
        bravais: type of lattice of the crystal in which it was found, if that was made in one.
    """

    host: Crystal
    guests: Guests
    bravais: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A candidate before it is made.

    Attributes:
        template: what `Generator.make` is given.
        bravais: type of its lattice, for the results.
        prototype: name of the known compound that it was made from, for the results.
    """

    template: Template
    bravais: str | None = None
    prototype: str | None = None


class Tools(Protocol):
    """What a generator may use while it makes crystals; see `model.stages.CrystalMaker`."""

    def sample(self, templates: Sequence[Template], settings: SamplerSettings) -> Samples:
        """Reverse diffusion with the score model."""
        ...

    def groups(self, template: Template) -> list[HostGroup]:
        """The space group of a template's host and its subgroups, largest first."""
        ...


class Generator(ABC):
    """One way to make candidates. Instances hold nothing but what is written in their class.

    Attributes:
        name: in configurations and results.
        start: what it starts from.
        first_guess: value of its candidates (see `search.planning.policy`) before anything is known.
        settings: type of its settings, None if it has none.
        default: these settings where a configuration says nothing.
        is_tunable: whether numbers among its settings can be tuned by name.
        has_options: whether the different candidates that it can make can be counted, see `options`.
    """

    name: ClassVar[str]
    start: ClassVar[Start]
    first_guess: ClassVar[float]
    settings: ClassVar[Any] = None
    default: ClassVar[Settings | None] = None
    is_tunable: ClassVar[bool] = False
    has_options: ClassVar[bool] = False

    @property
    def role(self) -> Role:
        """Role of its candidates."""
        return Role.FROM_HOST if self.start == Start.HOST else Role.NEW

    def suits(self, space_group: int) -> bool:
        """Whether it can fill hosts of a space group (1 to 230)."""
        return True

    def options(self, cell: CellFormula, parent: Crystal | None = None) -> Sequence[Any]:
        """All different candidates that it can make, one for each, if it ``has_options``.

        Generators that start from nothing go through their options again after the last, see `propose`; those that
        change a crystal are done with it.

        Args:
            cell: atoms that are wanted.
            parent: the crystal that is changed.
        """
        return ()

    def evaluations(self, settings: Any) -> int:
        """Calls of the score model for one batch."""
        return 0

    @abstractmethod
    def propose(self, start: Any, seed: int, *, option: Any = None, again: bool = False) -> Proposal:
        """A candidate from a start.

        Args:
            start: `NewCell`, `ParentCrystal` or `EmptyHost`, by `start`.
            seed: of everything random about the candidate.
            option: one of `options`, where there are any.
            again: whether that option had its turn before.
        """

    @abstractmethod
    def make(self, templates: Sequence[Template], settings: Any, tools: Tools) -> Samples:
        """Crystals in the order of their templates; ``evaluations`` counts calls of the score model, 0 if it has none.

        Args:
            templates: of its own proposals.
            settings: its own.
            tools: the score model, and the groups of hosts.
        """


class HostFiller(Generator):
    """Base of generators that fill a framework with guests."""

    start = Start.HOST

    def propose(self, start: EmptyHost, seed: int, *, option: Any = None, again: bool = False) -> Proposal:
        """The host, with its guests behind it at places without meaning."""
        crystal = with_guests(start.host, start.guests)
        guest = np.arange(len(crystal)) >= len(start.host)
        return Proposal(template=Template(crystal=crystal, guest=guest, seed=seed), bravais=start.bravais)


class AlreadyMade(Generator):
    """Base of generators whose proposals are crystals already."""

    def make(self, templates: Sequence[Template], settings: Any, tools: Tools) -> Samples:
        """The crystals of the templates."""
        return Samples([template.crystal for template in templates], 0)


def with_guests(host: Crystal, guests: Guests) -> Crystal:
    """The host with its guests, which have no place yet, behind it."""
    numbers = CellFormula(guests).numbers
    return host.join(Crystal(host.lattice, np.zeros((len(numbers), 3)), numbers))
