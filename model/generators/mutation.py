"""Crystals one change away from a good one of the search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.diffusion.sampler import Template
from model.generation.mutation import mutations
from model.generators.interface import AlreadyMade, ParentCrystal, Proposal, Start


class Mutation(AlreadyMade):
    """Every smallest change that leads from a crystal to the atoms of a cell, once."""

    name = "mutation"
    start = Start.CRYSTAL
    first_guess = 0.45
    has_options = True

    def options(self, cell: CellFormula, parent: Crystal | None = None) -> Sequence[Crystal]:
        """The changed crystals, in the volume of their parent."""
        assert parent is not None
        return mutations(parent, cell)

    def propose(
        self, start: ParentCrystal, seed: int, *, option: Crystal | None = None, again: bool = False
    ) -> Proposal:
        """The changed crystal; its volume changes as that of known phases does."""
        assert option is not None
        crystal = option.replace(lattice=option.lattice * np.cbrt(start.growth))
        template = Template(crystal=crystal, guest=np.zeros(len(crystal), dtype=bool), seed=seed)
        return Proposal(template=template, bravais=start.bravais)
