"""The methods of placing guests that the reconstruction benchmark compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field, TypeAdapter

from model.crystals.crystal import Crystal
from model.diffusion.sampler import SamplerSettings, Template
from model.generation.initial_placements import uniform, voronoi_voids
from model.generation.wyckoff_placement import HostGroup, host_groups, place_guests
from model.generators.inpainting import Inpainting
from model.stages import CrystalMaker
from search.benchmark.reconstruct import Case, Method
from search.benchmark.training_hosts import TrainingCrystals

BASELINES = ("random", "voids", "substitution")
STARTS = ("voids", "symmetric", "mixed")
SAMPLERS = ("ancestral", "heun", "predictor-corrector", "published")
HOST_SYMPREC = 0.01  # Å, tolerance for the space group of hosts
_SETTINGS: TypeAdapter[SamplerSettings] = TypeAdapter(Annotated[SamplerSettings, Field(discriminator="kind")])


def make_method(name: str, maker: CrystalMaker, prototypes: TrainingCrystals | None) -> Method:
    """The method with a given name: a baseline, or ``[START+]SAMPLER[:field=value,...]``.

    - ``random``: random placement without overlap. ``voids``: the widest voids. ``substitution``: the guest sites of
      the most similar training crystals. These three are only useful with a subsequent relaxation.
    - a sampler with its settings, for example ``ancestral:steps=30,temperature=0.3``.
    - ``voids+``: the sampler starts near the voids, with noise of its ``sigma_max``.
    - ``symmetric+``: guests keep the host's space group, or its largest subgroup that has orbits for them.
    - ``mixed+``: every second attempt is symmetric.

    Raises:
        ValueError: unknown method or setting, or ``substitution`` without training crystals.
    """
    if name == "substitution":
        if prototypes is None:
            raise ValueError("method substitution needs training crystals: give a file that has the split 'train'")
        return lambda case, seeds: (prototypes.substituted(case.host, case.guest, case.mask.sum())[: len(seeds)], 0)
    if name in BASELINES:
        place = {"random": uniform, "voids": voronoi_voids}[name]
        return lambda case, seeds: ([place(template).crystal for template in case.templates(seeds)], 0)
    start, _, sampler = name.rpartition("+")
    settings = parse_sampler(sampler)
    prepare = _start(start, name, settings)

    def sampled(case: Case, seeds: Sequence[int]) -> tuple[list[Crystal], int]:
        templates = prepare(case, seeds)
        made = maker.generate(templates, [Inpainting.name] * len(templates), [settings] * len(templates))
        return [one.crystal for one in made], max(one.evaluations for one in made)

    return sampled


def parse_sampler(text: str) -> SamplerSettings:
    """Settings from ``SAMPLER[:field=value,...]``; raises ValueError if one is invalid."""
    kind, _, rest = text.partition(":")
    if kind not in SAMPLERS:
        raise ValueError(
            f"unknown method {text!r}: use {', '.join(BASELINES)}, or a sampler ({', '.join(SAMPLERS)}), optionally"
            f" preceded by one of {', '.join(start + '+' for start in STARTS)}"
        )
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    try:
        return _SETTINGS.validate_python({"kind": kind, **{key: value for key, _, value in pairs}})
    except ValueError as error:
        raise ValueError(f"method {text!r}: {error}") from error


def _start(start: str, name: str, settings: SamplerSettings) -> Callable[[Case, Sequence[int]], list[Template]]:
    if start == "":
        return lambda case, seeds: case.templates(seeds)
    if start == "voids":
        return lambda case, seeds: [
            voronoi_voids(template, spread=settings.sigma_max) for template in case.templates(seeds)
        ]
    if start == "symmetric":
        return lambda case, seeds: symmetric(case, seeds)
    if start == "mixed":
        return lambda case, seeds: [
            one if index % 2 == 0 else other
            for index, (one, other) in enumerate(zip(case.templates(seeds), symmetric(case, seeds), strict=True))
        ]
    raise ValueError(f"method {name!r}: the part before + must be one of {', '.join(STARTS)}, not {start!r}")


def symmetric(case: Case, seeds: Sequence[int]) -> list[Template]:
    """Templates whose guests keep the largest group with orbits for them; plain ones if spglib finds no group."""
    try:
        groups = host_groups(case.host, symprec=HOST_SYMPREC)
    except ValueError:
        return case.templates(seeds)
    return [_placed(template, groups) for template in case.templates(seeds)]


def _placed(template: Template, groups: Sequence[HostGroup]) -> Template:
    return next((placed for group in groups if (placed := place_guests(template, group)) is not None), template)
