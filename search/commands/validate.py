"""`hostguide validate`: describe what a search will do and roughly how long it takes, without running it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from search.commands.common import (
    GuestOption,
    JsonOption,
    JudgeOption,
    MaxAtomsOption,
    QuestionArgument,
    console,
    counted,
    print_json,
    say_warnings,
    settings_of,
    use_threads,
)

if TYPE_CHECKING:
    from model.crystals.composition import CellFormula
    from model.thermodynamics.reference import Reference
    from search.config import SearchConfig
    from search.planning.tasks import Task

TYPICAL_STEPS = 60  # of a relaxation; a conservative assumption, L-BFGS needs about 15 in Li-Si
FORMULAS_SHOWN = 60


def validate(
    what: QuestionArgument,
    guest: GuestOption = None,
    max_atoms: MaxAtomsOption = None,
    judge: JudgeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe what a search will do and roughly how long it takes, without running it."""
    from search.planning.frameworks import framework_files
    from search.planning.prepare import check_potential, load_reference

    settings = settings_of(what, guest or [], max_atoms, judge)
    say_warnings(*framework_files(settings.frameworks.files))
    check_potential(settings)
    with counted() as report:
        reference = load_reference(settings, report=partial(report, "known phases"))
    with console.status("counting and measuring"):
        if as_json:
            print_json("validate", plan(settings, reference))
            return
        for line in describe(settings, reference):
            console.print(line)


def plan(config: SearchConfig, reference: Reference) -> dict[str, Any]:
    """The fields of `search.reporting.records.Plan`. Raises what a search raises."""
    from search.planning.prepare import describe_reference, volume_estimate

    cells = config.compositions.expand()
    groups = _by_formula(cells)
    return {
        "name": config.name,
        "elements": config.compositions.elements,
        "seed": config.seed,
        "cells": len(cells),
        "formulas": [
            {
                "formula": formula,
                "atoms": [cell.n_atoms for cell in group],
                "volume_per_atom": volume_estimate(config, reference, group[0]),
            }
            for formula, group in groups.items()
        ],
        "generators": config.generators,
        "guests": config.frameworks.guests,
        "potential": config.models.potential_entry.name,
        "reference": describe_reference(reference),
        "phases": len(reference),
        "on_hull": _on_hull(config, reference),
        "rounds": config.policy.rounds,
        "candidates": config.candidates,
        "minutes": _estimate(config, reference) / 60,
    }


def describe(config: SearchConfig, reference: Reference) -> Iterator[str]:
    """Lines for the user: compositions, cells, numbers, reference, time estimate. Raises what a search raises."""
    from model.generators.registry import GENERATORS
    from model.potentials.catalog import find_entry
    from search.planning.prepare import volume_estimate

    cells = config.compositions.expand()
    yield f"{config.name}: {'-'.join(config.compositions.elements)}, seed {config.seed}"
    counts = [cell.n_atoms for cell in cells]
    yield f"{len(cells)} cells of {min(counts)} to {max(counts)} atoms:"
    groups = _by_formula(cells)
    for formula, group in islice(groups.items(), FORMULAS_SHOWN):
        volume = volume_estimate(config, reference, group[0])
        sizes = ", ".join(str(cell.n_atoms) for cell in group)
        yield f"  {formula:<12} V0 {volume:5.1f} Å³/atom, cells of {sizes} atoms"
    if len(groups) > FORMULAS_SHOWN:
        yield f"  and {len(groups) - FORMULAS_SHOWN} more formulas"
    low, high = config.lattices.ranges.ratio
    yield f"lattices: {' '.join(config.lattices.bravais)}, ratios {low:g} to {high:g}"
    yield from _generators(config, cells)
    automatic = "chosen automatically (largest spread of local environments)"
    yield f"guests: {', '.join(config.frameworks.guests or ()) or automatic}"
    potential = config.models.potential_entry
    yield f"potential: {potential.name}, energies of {potential.level} (corrections: {potential.energies.corrections})"
    yield from _describe_reference(config, reference)
    if config.judge is not None:
        yield f"judge: {find_entry(config.judge.potential).name}, with its own hull; the estimated time is without it"
    yield f"{_rounds(config)}: at most {config.candidates} candidates"
    for name in config.generators:
        calls = GENERATORS[name].evaluations(config.sampling.get(name))
        if calls:
            yield f"{name}: {calls} evaluations of the score model per batch"
    minutes = _estimate(config, reference) / 60
    yield f"estimated time on one core: {minutes:.0f} minutes (from a short measurement; relaxations vary)"
    limits = [f"{name} {value:g}" for name, value in config.policy.stop if value is not None]
    if limits:
        yield f"may stop early (policy.stop): {', '.join(limits)}"


def _rounds(config: SearchConfig) -> str:
    policy, new, others = config.policy, config.new_per_round, config.built_per_round
    if not config.candidates_built:
        return f"{policy.rounds} rounds of {new} new crystals"
    if policy.feedback:  # the policy decides how many of them are new
        return f"{policy.rounds} rounds of up to {new + others} candidates"
    return f"{policy.rounds} rounds of {new} new crystals and up to {others} made from hosts or other crystals"


def _generators(config: SearchConfig, cells: Sequence[CellFormula]) -> Iterator[str]:
    from model.generators.registry import GENERATORS
    from model.generators.roles import Start
    from search.planning.campaign import known_types

    types = known_types(config)
    yield f"generators: {', '.join(config.generators)}"
    for name in config.generators:
        row = GENERATORS[name]
        if row.has_options and row.start == Start.NOTHING:
            known = [len(row.options(cell, types)) for cell in cells]
            covered = sum(map(bool, known))
            yield f"  {name}: {sum(known)} different crystals for {covered} of {len(cells)} cells"


def _describe_reference(config: SearchConfig, reference: Reference) -> Iterator[str]:
    from search.planning.prepare import describe_reference

    yield f"reference: {describe_reference(reference)}"
    yield f"  {len(reference)} phases, on the hull: {', '.join(_on_hull(config, reference))}"


def _on_hull(config: SearchConfig, reference: Reference) -> list[str]:
    from model.thermodynamics.stability import Stability

    stability = Stability(reference, config.compositions.elements)
    return sorted({entry.composition.reduced_formula for entry in stability.diagram.stable_entries})


def _by_formula(cells: Sequence[CellFormula]) -> dict[str, list[CellFormula]]:
    groups: dict[str, list[CellFormula]] = defaultdict(list)
    for cell in cells:
        groups[cell.reduced].append(cell)
    return groups


def _estimate(config: SearchConfig, reference: Reference) -> float:
    """Estimated seconds on one core, from one evaluation of each network for a batch of the first round."""
    from model.generators.registry import GENERATORS
    from model.generators.roles import Role
    from search.planning.campaign import Campaign
    from search.planning.prepare import volume_estimate
    from search.planning.round_plan import plan_round

    use_threads()
    campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
    task = plan_round(campaign, 0, campaign.history())[0]
    network, potential = _seconds_per_evaluation(config, task)
    policy = config.policy
    new = policy.rounds * config.new_per_round / policy.batch
    filled = config.candidates_built / policy.batch
    calls = dict.fromkeys(Role, 0)  # of the most expensive generator
    for name in config.generators:
        row = GENERATORS[name]
        calls[row.role] = max(calls[row.role], row.evaluations(config.sampling.get(name)))
    sampling = new * calls[Role.NEW] + filled * calls[Role.FROM_HOST]
    return sampling * network + (new + filled) * min(TYPICAL_STEPS, config.relaxation.max_steps) * potential


def _seconds_per_evaluation(config: SearchConfig, task: Task) -> tuple[float, float]:
    import numpy as np
    import torch

    from model.crystals.batch import Batch
    from model.potentials.catalog import load_potential
    from model.stages import CrystalMaker

    rng = np.random.default_rng(0)
    crystals = [one.crystal.replace(fractional=rng.random((len(one.crystal), 3))) for one in task.templates]
    network = CrystalMaker(config.models.weights, "cpu").network
    batch = Batch.from_crystals(crystals)
    sigma, guest = torch.full((len(batch),), 0.5), torch.ones(len(batch.numbers), dtype=torch.bool)
    potential = load_potential(config.models.potential)
    with torch.no_grad():
        first = _timed(lambda: network(batch, sigma, guest))
    return first, _timed(lambda: potential.evaluate(crystals))


def _timed(call: Callable[[], object]) -> float:
    call()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
