"""Crystals that a crystal of the search distorts into along its softest modes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.diffusion.sampler import Samples, Template
from model.generation.structure_types import StructureTypes
from model.generators.interface import Generator, ParentCrystal, Proposal, Tools
from model.generators.roles import Start

WAYS = 2  # candidates of a crystal in each of its cells: the two ways along a mode, or two modes


class ModeFollowing(Generator):
    """Displaces the atoms of a crystal along its lowest mode, in its own cell and in one that is doubled.

    Imaginary modes lead to crystals that are lower in energy. Along the softest mode of a minimum, the atoms are moved
    far enough to leave it, as in A. O. Lyakhov, A. R. Oganov, M. Valle, Comput. Phys. Commun. 181, 1623 (2010).
    The phonons are computed while crystals are made. A crystal that has no mode in a cell is made again as it is.
    """

    name = "mode"
    start = Start.CRYSTAL
    first_guess = 0.2
    has_options = True
    by_default = False
    work = 1500.0

    def reaches(self, parent: CellFormula, cell: CellFormula) -> bool:
        """Whether the cell holds the atoms of the parent once or twice."""
        return cell.reduced == parent.reduced and cell.n_atoms in (parent.n_atoms, 2 * parent.n_atoms)

    def options(self, cell: CellFormula, types: StructureTypes, parent: Crystal | None = None) -> Sequence[int]:
        """Numbers of the ways along its lowest modes."""
        return range(WAYS)

    def propose(self, start: ParentCrystal, seed: int, *, option: int | None = None, again: bool = False) -> Proposal:
        """The parent in the cell; the seed of the template modulo `WAYS` is the number of the way."""
        assert option is not None
        crystal = start.crystal
        if len(crystal) < start.cell.n_atoms:
            crystal = Crystal.from_ase(crystal.to_ase().repeat(_doubled(crystal)))
        template = Template(crystal=crystal, guest=np.zeros(len(crystal), dtype=bool), seed=seed - seed % WAYS + option)
        return Proposal(template=template)

    def make(self, templates: Sequence[Template], settings: None, tools: Tools) -> Samples:
        """The displaced crystals."""
        made = []
        for template in templates:
            ways, number = tools.along_modes(template.crystal), template.seed % WAYS
            made.append(ways[number] if number < len(ways) else template.crystal)
        return Samples(made, 0)


def _doubled(crystal: Crystal) -> tuple[int, int, int]:
    """Twice along the shortest cell vector."""
    shortest = int(np.linalg.norm(crystal.lattice, axis=1).argmin())
    first, second, third = (2 if axis == shortest else 1 for axis in range(3))
    return first, second, third
