"""New crystals from known structure types by replacing their elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.diffusion.sampler import Template
from model.generation.ion_substitution import Substitution, substitutions
from model.generation.structure_types import StructureTypes
from model.generators.interface import AlreadyMade, NewCell, Proposal
from model.generators.roles import Start


class IonSubstitution(AlreadyMade):
    """Uses the known structure types of a cell in turn, the likeliest first."""

    name = "ion_substitution"
    start = Start.NOTHING
    first_guess = 0.5
    has_options = True

    def options(
        self, cell: CellFormula, types: StructureTypes, parent: Crystal | None = None
    ) -> Sequence[Substitution]:
        """Known phases, each with an assignment of the cell's elements to its sites."""
        return substitutions(cell, types)

    def propose(
        self, start: NewCell, seed: int, *, option: Substitution | None = None, again: bool = False
    ) -> Proposal:
        """The structure type with its own volume; if it was used before, its atoms are displaced slightly."""
        assert option is not None
        crystal = option.crystal(np.random.default_rng(seed) if again else None)
        template = Template(crystal=crystal, guest=np.zeros(len(crystal), dtype=bool), seed=seed)
        return Proposal(template=template, prototype=option.name)
