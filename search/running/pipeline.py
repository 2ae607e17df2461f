"""A task's way through the stages in one process, and the rows that it leaves. The driver does the same with actors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from model.generation.framework import Framework
from model.relaxation.relax import Relaxation
from model.stages import Generated, Generator, Judged, Rejected, Relaxer, Symmetrizer, usable
from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.campaign import Campaign
from search.planning.prepare import describe_reference, hull_energies, volume_estimate
from search.planning.tasks import GENERATED, Plan, Task, under_way
from search.storage.results import SCHEMA, ResultStore, pack

EMPTY_ROW: dict[str, Any] = dict.fromkeys(SCHEMA.names)


class Stages(NamedTuple):
    """What a task goes through."""

    generator: Generator
    relaxer: Relaxer
    symmetrizer: Symmetrizer


def load_stages(config: SearchConfig, reference: Reference, *, device: str = "cpu") -> Stages:
    """The stages of a search, networks loaded."""
    models = config.models
    return Stages(
        Generator(models.weights, device),
        Relaxer(models.potential, config.relaxation, config.screening, hull_energies(config, reference)),
        Symmetrizer(
            reference,
            config.compositions.elements,
            config.frameworks.guests,
            config.frameworks.ladder,
            config.screening,
        ),
    )


def search_here(
    config: SearchConfig, reference: Reference, store: ResultStore, stages: Stages
) -> Iterator[list[dict[str, Any]]]:
    """A search in this process, task after task; tasks that are stored are taken over. Yields the rows of each."""
    campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
    judged_by = {"potential": config.models.potential, "reference": describe_reference(reference)}
    stored, known = store.tasks(), campaign.known()
    tasks: dict[int, list[Task]] = {}
    rows: dict[int, list[dict[str, Any]]] = {}
    for number in range(config.policy.rounds):
        for before in campaign.known_rounds(number):
            known.read(rows.pop(before, ()))
        if known.ending.reason(number):
            return
        pending = [task for k in rows for task in tasks[k]]
        tasks[number], rows[number] = campaign.plan(number, known, under_way(pending)), []
        for task in tasks[number]:
            if task.identity not in stored:
                store.append(task.identity, run_task(task, *stages, judged_by=judged_by))
            made = store.rows([task.identity])
            rows[number] += made
            yield made


def run_task(
    task: Task,
    generator: Generator,
    relaxer: Relaxer,
    symmetrizer: Symmetrizer,
    *,
    judged_by: Mapping[str, str],
) -> list[dict[str, Any]]:
    """All stages of one task, one after the other."""
    generated = generator.generate(task.templates, task.settings)
    relaxed = relaxer.relax(generated.crystals, None, task.relaxation, task.guests)
    judged = symmetrizer.judge(relaxed, take_out(task, relaxed), task.found, task.highest)
    return task_rows(task, generated, relaxed, judged, judged_by=judged_by)


def take_out(task: Task, relaxed: Sequence[Relaxation | Rejected]) -> list[Sequence[str] | None]:
    """Which guests the symmetrizer takes out of each crystal of a task; None where no frameworks are wanted.

    New crystals give frameworks where any are filled. A filled framework gives one again when its volume moved further
    than ``task.volume_change``: the host relaxed with its guests is not the one that they were put into. What was given
    up as hopeless gives none.
    """
    if task.highest == -math.inf:
        return [None] * len(relaxed)
    wanted: list[Sequence[str] | None] = []
    for plan, outcome in zip(task.plans, relaxed, strict=True):
        if isinstance(outcome, Relaxation) and outcome.reason == "hopeless":
            wanted.append(None)
        elif plan.stage == GENERATED:
            wanted.append(())
        else:
            wanted.append(plan.origin["guests"] if _volume_moved(outcome) > task.volume_change else None)
    return wanted


def _volume_moved(outcome: Relaxation | Rejected) -> float:
    return 0.0 if isinstance(outcome, Rejected) else abs(outcome.final.volume / outcome.initial.volume - 1)


def alone(outcome: Any, index: int) -> Any:
    """What a stage returned for a batch, for one of its candidates."""
    if isinstance(outcome, Generated):
        return replace(outcome, crystals=[outcome.crystals[index]])
    one = outcome[index]
    if isinstance(one, Rejected) and one.duplicate_of is not None:  # counted from the candidate itself, see Task.first
        one = replace(one, duplicate_of=one.duplicate_of - index)
    return [one]


def task_rows(
    task: Task,
    generated: Generated,
    relaxed: Sequence[Relaxation | Rejected],
    judged: Sequence[Judged | None],
    *,
    judged_by: Mapping[str, str],
) -> list[dict[str, Any]]:
    """One row a candidate, whatever became of it; ``judged_by`` holds the columns potential and reference."""
    rows = []
    for index, plan in enumerate(task.plans):
        row = {
            **_origin(task, index, plan),
            "evaluations": generated.evaluations[index],
            "score_model": generated.score_model[index],
            **judged_by,
            "initial": pack(generated.crystals[index]),
            "seconds_generate": generated.seconds,
        }
        outcome, verdict = relaxed[index], judged[index]
        row |= _rejected(task, outcome) if isinstance(outcome, Rejected) else _relaxed(outcome)
        if verdict is not None:
            row |= _judged(task, plan, row["candidate"], verdict)
        rows.append(row)
    return rows


def failed_rows(task: Task, reason: str, detail: str, *, judged_by: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of a task that could not be finished, so that it is not tried for ever."""
    return [
        {**_origin(task, index, plan), "status": "failed", "reason": reason, "detail": detail, **judged_by}
        for index, plan in enumerate(task.plans)
    ]


def _origin(task: Task, index: int, plan: Plan) -> dict[str, Any]:
    return {
        **EMPTY_ROW,
        **plan.origin,
        "candidate": _candidate(task, index),
        "task": task.identity,
        "round": task.round,
        "stage": plan.stage,
        "generator": plan.method,
        "formula": plan.template.crystal.formula,
        "n_atoms": len(plan.template.crystal),
        "sampler": plan.settings.model_dump_json(),
        "relaxation": task.relaxation.model_dump_json(),
        "seed": plan.template.seed,
    }


def _candidate(task: Task, index: int) -> str:
    return f"{task.identity}-{task.first + index:02d}"


def _rejected(task: Task, outcome: Rejected) -> dict[str, Any]:
    duplicate = None if outcome.duplicate_of is None else _candidate(task, outcome.duplicate_of)
    return {"status": "rejected", "reason": outcome.reason, "duplicate_of": duplicate}


def _relaxed(outcome: Relaxation) -> dict[str, Any]:
    status = "failed" if not usable(outcome) else "relaxed" if outcome.converged else "unconverged"
    return {
        "status": status,
        "reason": "" if status == "relaxed" else outcome.reason,
        "detail": outcome.detail,
        "final": pack(outcome.final),
        "volume_per_atom": outcome.final.volume / len(outcome.final),
        "energy_initial": outcome.energy_initial,
        "energy": outcome.energy_final,
        "max_force_initial": outcome.max_force_initial,
        "max_force": outcome.max_force,
        "pressure": outcome.pressure,
        "steps": outcome.steps,
        "orbits": outcome.orbits,
        "converged": outcome.converged,
        "seconds_relax": outcome.seconds,
    }


def _judged(task: Task, plan: Plan, candidate: str, verdict: Judged) -> dict[str, Any]:
    group = verdict.space_group
    return {
        "space_group": group.symbol if group else None,
        "space_group_number": group.number if group else None,
        "symprec": group.symprec if group else None,
        "angle_tolerance": group.angle if group else None,
        "duplicate_of": None if verdict.duplicate_of is None else _candidate(task, verdict.duplicate_of),
        "e_d": verdict.decomposition.e_d,
        "e_d_found": verdict.e_d_found,
        "products": verdict.decomposition.products,
        "frameworks": [_framework(f"{candidate}-f{i}", found) for i, found in enumerate(verdict.frameworks)],
        **({"guests": verdict.guests} if plan.stage == GENERATED else {}),
        "seconds_refine": verdict.seconds,
    }


def _framework(identity: str, found: Framework) -> dict[str, Any]:
    return {
        "framework": identity,
        "host": pack(found.host),
        "guests": found.guests,
        "space_group": found.space_group.symbol,
        "space_group_number": found.space_group.number,
        "symprec": found.space_group.symprec,
        "angle_tolerance": found.space_group.angle,
        "displacement": found.displacement,
    }
