"""Interface of generators: what they start from, how they propose candidates and make crystals from proposals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from model.generation.structure_types import StructureTypes
from model.generation.wyckoff_placement import HostGroup
from model.generators.roles import Role, Start
from model.settings import Settings

AnySampler = Annotated[PredictorCorrectorSettings | HeunSettings | AncestralSettings, Field(discriminator="kind")]
Guests = tuple[tuple[str, int], ...]  # element and count, sorted by element


@dataclass(frozen=True, kw_only=True, eq=False)
class NewCell:
    """`Start.NOTHING`.

    Attributes:
        cell: atoms of the cell.
        volume: Å³, of the whole cell.
        bravais: chooses the Bravais lattice, for example ``cF``; called by generators that need one.
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
        cell: atoms of the changed crystal.
        growth: ratio of the estimated volumes, changed crystal to parent.
        bravais: Bravais lattice in which the parent was generated, if any.
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
        guests: to place into it.
        bravais: Bravais lattice in which the crystal it was found in was generated, if any.
    """

    host: Crystal
    guests: Guests
    bravais: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A candidate before it is generated.

    Attributes:
        template: input of `Generator.make`.
        bravais: its Bravais lattice, for the results.
        prototype: name of the known compound from which it is derived, for the results.
    """

    template: Template
    bravais: str | None = None
    prototype: str | None = None


class Tools(Protocol):
    """Functions available to a generator while it makes crystals; see `model.stages.CrystalMaker`."""

    def sample(self, templates: Sequence[Template], settings: SamplerSettings) -> Samples:
        """Reverse diffusion with the score model."""
        ...

    def groups(self, template: Template) -> list[HostGroup]:
        """The space group of a template's host and its subgroups, largest first."""
        ...

    def along_modes(self, crystal: Crystal) -> list[Crystal]:
        """Distinct crystals of as many atoms, displaced along the lowest modes of a crystal."""
        ...


class Generator(ABC):
    """One way to make candidates. Instances have no state of their own.

    Attributes:
        name: in configurations and results.
        start: what it starts from.
        first_guess: prior value of its candidates, see `search.planning.policy`.
        settings: type of its settings; None if it has none.
        default: default settings.
        is_tunable: whether numeric fields of its settings can be tuned by name.
        has_options: whether it makes a finite number of different candidates, see `options`.
        by_default: whether it is among the generators of a configuration that names none.
        work: spent on a candidate before its relaxation, in evaluations of the potential for one atom.
    """

    name: ClassVar[str]
    start: ClassVar[Start]
    first_guess: ClassVar[float]
    settings: ClassVar[Any] = None
    default: ClassVar[Settings | None] = None
    is_tunable: ClassVar[bool] = False
    has_options: ClassVar[bool] = False
    by_default: ClassVar[bool] = True
    work: ClassVar[float] = 0.0

    @property
    def role(self) -> Role:
        """Role of its candidates."""
        return Role.FROM_HOST if self.start == Start.HOST else Role.NEW

    def suits(self, space_group: int) -> bool:
        """Whether it can fill hosts with a given space group (1 to 230)."""
        return True

    def options(self, cell: CellFormula, types: StructureTypes, parent: Crystal | None = None) -> Sequence[Any]:
        """One option per different candidate that it can make, if it ``has_options``.

        Generators that start from nothing start again after the last option, see `propose`; generators that change a
        crystal do not use that crystal any more.

        Args:
            cell: atoms of the candidates.
            types: the known structure types that may serve.
            parent: the crystal to change.
        """
        return ()

    def reaches(self, parent: CellFormula, cell: CellFormula) -> bool:
        """Whether it can change a crystal with one cell into one with another; asked if it starts from a crystal."""
        return True

    def evaluations(self, settings: Any) -> int:
        """Calls of the score model per batch."""
        return 0

    @abstractmethod
    def propose(self, start: Any, seed: int, *, option: Any = None, again: bool = False) -> Proposal:
        """Propose a candidate.

        Args:
            start: `NewCell`, `ParentCrystal` or `EmptyHost`, depending on the attribute `start`.
            seed: determines everything random about the candidate.
            option: one of `options`, if it ``has_options``.
            again: whether that option was used before.
        """

    @abstractmethod
    def make(self, templates: Sequence[Template], settings: Any, tools: Tools) -> Samples:
        """Crystals in the order of their templates; ``evaluations`` counts calls of the score model.

        Args:
            templates: of its own proposals.
            settings: its own settings.
            tools: the score model, and the groups of hosts.
        """


class HostFiller(Generator):
    """Base of generators that fill a framework with guests."""

    start = Start.HOST

    def propose(self, start: EmptyHost, seed: int, *, option: Any = None, again: bool = False) -> Proposal:
        """The host followed by its guests, whose positions are placeholders."""
        crystal = with_guests(start.host, start.guests)
        guest = np.arange(len(crystal)) >= len(start.host)
        return Proposal(template=Template(crystal=crystal, guest=guest, seed=seed), bravais=start.bravais)


class AlreadyMade(Generator):
    """Base of generators whose proposals are already complete crystals."""

    def make(self, templates: Sequence[Template], settings: Any, tools: Tools) -> Samples:
        """The crystals of the templates."""
        return Samples([template.crystal for template in templates], 0)


def with_guests(host: Crystal, guests: Guests) -> Crystal:
    """The host followed by its guests, whose positions are placeholders."""
    numbers = CellFormula(guests).numbers
    return host.join(Crystal(host.lattice, np.zeros((len(numbers), 3)), numbers))
