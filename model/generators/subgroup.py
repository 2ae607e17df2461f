"""Filling frameworks by inpainting that keeps a subgroup of the host's space group."""

from __future__ import annotations

from collections.abc import Sequence

from model.diffusion.sampler import Samples, Template
from model.generation.wyckoff_placement import SubgroupSettings, has_symmetric_subgroups, on_orbits
from model.generators.interface import HostFiller, Tools


class Subgroup(HostFiller):
    """Places guests on orbits of a subgroup of their host's space group."""

    name = "subgroup"
    first_guess = 0.25
    settings = SubgroupSettings
    default = SubgroupSettings()

    def suits(self, space_group: int) -> bool:
        """True for hosts that have a subgroup with some symmetry."""
        return has_symmetric_subgroups(space_group)

    def evaluations(self, settings: SubgroupSettings) -> int:
        """Number of evaluations of its sampler."""
        return settings.sampler.evaluations(inpainting=True)

    def make(self, templates: Sequence[Template], settings: SubgroupSettings, tools: Tools) -> Samples:
        """Place the guests on orbits of a subgroup and sample from there."""
        placed = [on_orbits(template, tools.groups(template)[1:], settings.descend) for template in templates]
        return tools.sample(placed, settings.sampler)
