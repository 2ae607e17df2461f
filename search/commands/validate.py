"""`hostguide validate`: what a search will do and roughly how long it takes, without doing it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.commands.common import ConfigArgument, console, use_threads

if TYPE_CHECKING:
    from model.crystals.composition import CellFormula
    from model.crystals.crystal import Crystal
    from model.diffusion.sampler import Template, SamplerSettings
    from model.thermodynamics.reference import Reference
    from search.config import SearchConfig
    from search.planning.tasks import Task

TYPICAL_STEPS = 60  # of a relaxation; an assumption on the safe side, L-BFGS in Li-Si needs about 15


def validate(config: ConfigArgument) -> None:
    """Say what a search will do and roughly how long it takes, without doing it."""
    from search.config import load_config

    for line in describe(load_config(config)):
        console.print(line)


def describe(config: SearchConfig) -> Iterator[str]:
    """Lines for a person: compositions, cells, numbers, reference, estimated time. Raises what a search would raise."""
    from search.planning.prepare import load_reference, volume_estimate

    cells = config.compositions.expand()
    reference = load_reference(config)
    yield f"{config.name}: {'-'.join(config.compositions.elements)}, seed {config.seed}"
    counts = [cell.n_atoms for cell in cells]
    yield f"{len(cells)} cells of {min(counts)} to {max(counts)} atoms:"
    for formula, group in _by_formula(cells).items():
        volume = volume_estimate(config, reference, group[0])
        sizes = ", ".join(str(cell.n_atoms) for cell in group)
        yield f"  {formula:<12} V0 {volume:5.1f} Å³/atom, cells of {sizes} atoms"
    low, high = config.lattices.ranges.ratio
    yield f"lattices: {' '.join(config.lattices.bravais)}, ratios {low:g} to {high:g}"
    yield from _generators(config, cells)
    automatic = "chosen automatically (largest spread of local environments)"
    yield f"guests: {', '.join(config.frameworks.guests or ()) or automatic}"
    yield from _describe_reference(config, reference)
    yield f"{_rounds(config)}: at most {config.candidates} candidates"
    for name, sampler in (("generation", config.generation), ("inpainting", config.inpainting)):
        calls = evaluations(sampler, inpainting=name == "inpainting")
        yield f"{name}: {sampler.kind}, {calls} network evaluations per batch"
    minutes = _estimate(config, reference) / 60
    yield f"estimated time on one core: {minutes:.0f} minutes (measured just now; relaxations vary)"
    limits = [f"{name} {value:g}" for name, value in config.policy.stop if value is not None]
    if limits:
        yield f"stops early at policy.stop: {', '.join(limits)}"


def _rounds(config: SearchConfig) -> str:
    policy = config.policy
    if not config.extra_inpainted:
        return f"{policy.rounds} rounds of {policy.generated} new crystals"
    if policy.feedback:  # the policy decides how many of them are new
        return (
            f"{policy.rounds} rounds of up to {policy.generated + policy.inpainted} new and inpainted crystals together"
        )
    return f"{policy.rounds} rounds of {policy.generated} new and up to {policy.inpainted} inpainted crystals"


def _generators(config: SearchConfig, cells: Sequence[CellFormula]) -> Iterator[str]:
    from model.generation.ion_substitution import exchanges
    from search.config import EXCHANGE

    yield f"generators: {', '.join(config.generators)}"
    if EXCHANGE in config.generators:
        known = [len(exchanges(cell)) for cell in cells]
        covered = np.count_nonzero(known)
        yield f"  ion exchange: {sum(known)} crystals of known structure types, for {covered} of {len(cells)} cells"


def _describe_reference(config: SearchConfig, reference: Reference) -> Iterator[str]:
    from model.thermodynamics.stability import Stability
    from search.planning.prepare import describe_reference

    stability = Stability(reference, config.compositions.elements)
    stable = sorted({entry.composition.reduced_formula for entry in stability.diagram.stable_entries})
    yield f"reference: {describe_reference(reference)}"
    yield f"  {len(reference)} phases, on the hull: {', '.join(stable)}"


def _by_formula(cells: Sequence[CellFormula]) -> dict[str, list[CellFormula]]:
    groups: dict[str, list[CellFormula]] = defaultdict(list)
    for cell in cells:
        groups[cell.reduced].append(cell)
    return groups


def evaluations(settings: SamplerSettings, *, inpainting: bool) -> int:
    """Network evaluations that a sampler spends on one batch."""
    from model.diffusion.sampler import AncestralSettings, HeunSettings, jump_schedule

    if isinstance(settings, AncestralSettings):
        return settings.steps
    if isinstance(settings, HeunSettings):
        return 2 * settings.steps - 1
    moves = jump_schedule(settings.steps, jump=settings.jump, resamples=settings.resamples if inpainting else 1)
    return sum(1 + (settings.correctors if low > 0 else 0) for high, low in moves if low < high)


def _estimate(config: SearchConfig, reference: Reference) -> float:
    """Seconds on one core, from one evaluation of each network on a batch of the first round."""
    from search.planning.campaign import Campaign
    from search.planning.prepare import volume_estimate

    use_threads()
    campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
    task = campaign.plan(0, campaign.known())[0]
    network, potential = _seconds_per_evaluation(config, task)
    policy = config.policy
    generated = policy.rounds * policy.generated / policy.batch
    inpainted = config.extra_inpainted / policy.batch
    sampling = generated * evaluations(config.generation, inpainting=False)
    sampling += inpainted * evaluations(config.inpainting, inpainting=True)
    return sampling * network + (generated + inpainted) * min(TYPICAL_STEPS, config.relaxation.max_steps) * potential


def _seconds_per_evaluation(config: SearchConfig, task: Task) -> tuple[float, float]:
    import torch

    from model.crystals.batch import Batch
    from model.potentials.chgnet.potential import CHGNetPotential
    from model.stages import Generator

    rng = np.random.default_rng(0)
    crystals = [_scattered(template, rng) for template in task.templates]
    network = Generator(config.models.weights, "cpu").network
    batch = Batch.from_crystals(crystals)
    sigma, guest = torch.full((len(batch),), 0.5), torch.ones(len(batch.numbers), dtype=torch.bool)
    potential = CHGNetPotential(config.models.potential.removeprefix("chgnet-"))
    with torch.no_grad():
        first = _timed(lambda: network(batch, sigma, guest))
    return first, _timed(lambda: potential.evaluate(crystals))


def _scattered(template: Template, rng: np.random.Generator) -> Crystal:
    return template.crystal.replace(fractional=rng.random((len(template.crystal), 3)))


def _timed(call: Callable[[], object]) -> float:
    call()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
