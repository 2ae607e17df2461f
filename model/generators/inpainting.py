"""Guests into frameworks by inpainting: reverse diffusion of the guests while the host stays."""

from __future__ import annotations

from collections.abc import Sequence

from model.diffusion.sampler import AncestralSettings, SamplerSettings, Samples, Template
from model.generators.interface import AnySampler, HostFiller, Tools


class Inpainting(HostFiller):
    """Guests anywhere in the host."""

    name = "inpainting"
    first_guess = 0.35
    settings = AnySampler
    default = AncestralSettings()
    is_tunable = True

    def evaluations(self, settings: SamplerSettings) -> int:
        """As its sampler says."""
        return settings.evaluations(inpainting=True)

    def make(self, templates: Sequence[Template], settings: SamplerSettings, tools: Tools) -> Samples:
        """Sample the guests with the score model."""
        return tools.sample(templates, settings)
