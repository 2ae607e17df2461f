"""Filling frameworks by inpainting: reverse diffusion of the guests while the host stays fixed."""

from __future__ import annotations

from collections.abc import Sequence

from model.diffusion.sampler import AncestralSettings, SamplerSettings, Samples, Template
from model.generators.interface import AnySampler, HostFiller, Tools


class Inpainting(HostFiller):
    """Places guests anywhere in the host."""

    name = "inpainting"
    first_guess = 0.35
    settings = AnySampler
    default = AncestralSettings()
    is_tunable = True

    def evaluations(self, settings: SamplerSettings) -> int:
        """Number of evaluations of its sampler."""
        return settings.evaluations(inpainting=True)

    def make(self, templates: Sequence[Template], settings: SamplerSettings, tools: Tools) -> Samples:
        """Sample the guests with the score model."""
        return tools.sample(templates, settings)
