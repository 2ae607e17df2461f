"""New crystals by one small change of a good crystal of the search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.diffusion.sampler import Template
from model.generation.mutation import mutations, steps_apart
from model.generation.structure_types import StructureTypes
from model.generators.interface import AlreadyMade, ParentCrystal, Proposal
from model.generators.roles import Start


class Mutation(AlreadyMade):
    """Makes each of the smallest changes that lead from a crystal to the atoms of a cell, once."""

    name = "mutation"
    start = Start.CRYSTAL
    first_guess = 0.45
    has_options = True

    def reaches(self, parent: CellFormula, cell: CellFormula) -> bool:
        """Whether one change is enough; in a crystal of several elements, it may also swap two atoms."""
        steps = steps_apart(parent, cell)
        return steps == 1 or len(parent.counts) > 1 > steps

    def options(self, cell: CellFormula, types: StructureTypes, parent: Crystal | None = None) -> Sequence[Crystal]:
        """The changed crystals, at the volume of their parent."""
        assert parent is not None
        return mutations(parent, cell)

    def propose(
        self, start: ParentCrystal, seed: int, *, option: Crystal | None = None, again: bool = False
    ) -> Proposal:
        """The changed crystal; its volume is scaled by ``start.growth``."""
        assert option is not None
        crystal = option.replace(lattice=option.lattice * np.cbrt(start.growth))
        template = Template(crystal=crystal, guest=np.zeros(len(crystal), dtype=bool), seed=seed)
        return Proposal(template=template, bravais=start.bravais)
