"""Filling frameworks by inpainting that keeps the host's space group."""

from __future__ import annotations

from collections.abc import Sequence

from model.diffusion.sampler import Samples, Template
from model.generation.wyckoff_placement import SymmetricSettings, on_orbits
from model.generators.interface import HostFiller, Tools


class Symmetric(HostFiller):
    """Places guests on orbits of their host's space group, or of its largest subgroup in which they fit."""

    name = "symmetric"
    first_guess = 0.25
    settings = SymmetricSettings
    default = SymmetricSettings()

    def suits(self, space_group: int) -> bool:
        """True for any host with symmetry."""
        return space_group > 1

    def evaluations(self, settings: SymmetricSettings) -> int:
        """Number of evaluations of its sampler."""
        return settings.sampler.evaluations(inpainting=True)

    def make(self, templates: Sequence[Template], settings: SymmetricSettings, tools: Tools) -> Samples:
        """Place the guests on orbits and sample from there."""
        placed = [on_orbits(template, tools.groups(template)) for template in templates]
        return tools.sample(placed, settings.sampler)
