"""New crystals by reverse diffusion in a random lattice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.lattice import sample_lattice
from model.diffusion.sampler import AncestralSettings, SamplerSettings, Samples, Template
from model.generators.interface import AnySampler, Generator, NewCell, Proposal, Tools
from model.generators.roles import Start


class RandomLattice(Generator):
    """Base of generators that place atoms in a random lattice of given Bravais type and volume."""

    start = Start.NOTHING

    def propose(self, start: NewCell, seed: int, *, option: Any = None, again: bool = False) -> Proposal:
        """A random cell; the positions of its atoms are placeholders."""
        bravais, n_atoms = start.bravais(), start.cell.n_atoms
        lattice = sample_lattice(bravais, start.volume, np.random.default_rng(seed), start.ranges)
        crystal = Crystal(lattice, np.zeros((n_atoms, 3)), start.cell.numbers)
        template = Template(crystal=crystal, guest=np.ones(n_atoms, dtype=bool), seed=seed, bravais=bravais)
        return Proposal(template=template, bravais=bravais)


class Diffusion(RandomLattice):
    """Places all atoms by reverse diffusion."""

    name = "diffusion"
    first_guess = 0.35
    settings = AnySampler
    default = AncestralSettings(temperature=0.7)  # higher than for filling hosts: more diverse crystals
    is_tunable = True

    def evaluations(self, settings: SamplerSettings) -> int:
        """Number of evaluations of its sampler."""
        return settings.evaluations(inpainting=False)

    def make(self, templates: Sequence[Template], settings: SamplerSettings, tools: Tools) -> Samples:
        """Sample with the score model."""
        return tools.sample(templates, settings)
