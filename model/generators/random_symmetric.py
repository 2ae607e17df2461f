"""New random crystals on the Wyckoff positions of a random space group, without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.crystals.crystal import Crystal
from model.diffusion.sampler import Samples, Template
from model.generation.random_crystal import RandomSettings, random_crystal
from model.generators.diffusion import RandomLattice
from model.generators.interface import Tools


class RandomSymmetric(RandomLattice):
    """Makes random symmetric crystals."""

    name = "random"
    first_guess = 0.1
    settings = RandomSettings
    default = RandomSettings()

    def make(self, templates: Sequence[Template], settings: RandomSettings, tools: Tools) -> Samples:
        """Draw space group and positions; triclinic if a template has no Bravais lattice."""
        return Samples([_random(template, settings) for template in templates], 0)


def _random(template: Template, settings: RandomSettings) -> Crystal:
    rng = np.random.default_rng(template.seed)
    return random_crystal(template.crystal, template.bravais or "aP", rng, settings)
