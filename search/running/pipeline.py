"""Running a task through all steps in one process, and making its rows. The driver does the same with actors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from model.crystals.crystal import Crystal
from model.crystals.matching import packed
from model.generators.roles import Role
from model.reasons import Reason
from model.relaxation.polish import Polished
from model.relaxation.relax import Relaxation
from model.stages import Analyser, Analysis, CrystalMaker, Made, Rejected, Relaxer, may_be_ranked
from model.thermodynamics.candidate_judge import CandidateJudge, Said
from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.campaign import Campaign
from search.planning.prepare import describe_reference, hull_energies, volume_estimate
from search.planning.round_plan import plan_round
from search.planning.tasks import Candidate, Task, pending_rows
from search.storage.results import ResultStore
from search.storage.rows import Row, Status, StoredCrystal, StoredFramework


class Stages(NamedTuple):
    """The stages of the pipeline."""

    maker: CrystalMaker
    relaxer: Relaxer
    analyser: Analyser
    judge: CandidateJudge | None = None


@dataclass(frozen=True)
class Provenance:
    """Potential and reference of a search's energies; the result columns have the same names.

    Attributes:
        potential: that computed the energies.
        reference: against which E_d is measured.
    """

    potential: str
    reference: str

    @classmethod
    def of(cls, config: SearchConfig, reference: Reference) -> Provenance:
        """Potential and reference of a search."""
        return cls(config.models.potential_entry.name, describe_reference(reference))


def load_stages(
    config: SearchConfig, reference: Reference, judge_reference: Reference | None = None, *, device: str = "cpu"
) -> Stages:
    """The stages of a search, with their networks loaded."""
    models = config.models
    return Stages(
        CrystalMaker(models.weights, device, models.potential),
        Relaxer(models.potential, config.relaxation, config.screening, hull_energies(config, reference)),
        Analyser(
            reference,
            config.compositions.elements,
            config.frameworks.guests,
            config.frameworks.tolerances,
            config.screening,
        ),
        None if judge_reference is None else CandidateJudge(**judge_arguments(config, judge_reference)),
    )


def judge_arguments(config: SearchConfig, reference: Reference) -> dict[str, Any]:
    """Constructor arguments of the judge of a search, with its own reference."""
    assert config.judge is not None
    return {
        "potential": config.judge.potential,
        "reference": reference,
        "elements": config.compositions.elements,
        "relaxation": config.judge.relaxation,
        "gain": config.judge.gain,
        "device": config.judge.device,
    }


def search_here(config: SearchConfig, reference: Reference, store: ResultStore, stages: Stages) -> Iterator[list[Row]]:
    """Run a search in this process, task by task; stored tasks are not repeated. Yields the rows of each task."""
    campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
    provenance = Provenance.of(config, reference)
    stored, history = store.tasks(), campaign.history()
    tasks: dict[int, list[Task]] = {}
    rows: dict[int, list[Row]] = {}
    for number in range(config.policy.rounds):
        for before in campaign.known_rounds(number):
            history.read(rows.pop(before, ()))
        if history.stopping.reason(number):
            return
        pending = [task for k in rows for task in tasks[k]]
        rows[number], tasks[number] = [], plan_round(campaign, number, history, pending_rows(pending))
        for task in tasks[number]:
            if task.identity not in stored:
                store.append(task.identity, run_task(task, stages, provenance))
            made = store.rows([task.identity])
            rows[number] += made
            yield made


def run_task(task: Task, stages: Stages, provenance: Provenance) -> list[Row]:
    """Run all steps of one task."""
    made = stages.maker.generate(task.templates, task.generators, task.settings)
    relaxed = stages.relaxer.relax([one.crystal for one in made], None, task.relaxation, task.guests, task.polish)
    analysed = stages.analyser.analyse(relaxed, guests_to_remove(task, relaxed), task.found_phases, task.max_parent_e_d)
    if stages.judge is None or task.judge is None:
        return task_rows(task, made, relaxed, analysed, provenance)
    said = stages.judge.judge(*to_judge(relaxed, analysed), task.judge)
    return task_rows(task, made, relaxed, analysed, provenance, said)


def to_judge(
    relaxed: Sequence[Relaxation | Rejected], analysed: Sequence[Analysis | None]
) -> tuple[list[Crystal | None], list[float | None]]:
    """The crystals of a task, and their E_d (eV/atom); None for those that a judge has no use for.

    These are crystals that repeat another, and those whose relaxation was not finished.
    """
    crystals = [outcome.final if isinstance(outcome, Relaxation) else None for outcome in relaxed]
    e_d = [
        analysis.decomposition.e_d
        if analysis and analysis.repeats is None and isinstance(outcome, Relaxation) and outcome.converged
        else None
        for outcome, analysis in zip(relaxed, analysed, strict=True)
    ]
    return crystals, e_d


def guests_to_remove(task: Task, relaxed: Sequence[Relaxation | Rejected]) -> list[Sequence[str] | None]:
    """The guests that the analyser removes from each crystal of a task; None if no frameworks are to be extracted.

    Frameworks are extracted from new crystals if the search fills any. They are extracted again from a filled framework
    whose volume changed by more than ``task.volume_change``, because the relaxed host then differs from the original
    one. None are extracted from crystals whose relaxation was stopped early.
    """
    if task.max_parent_e_d == -math.inf:
        return [None] * len(relaxed)
    wanted: list[Sequence[str] | None] = []
    for candidate, outcome in zip(task.candidates, relaxed, strict=True):
        if isinstance(outcome, Relaxation) and outcome.reason == Reason.EARLY_STOPPED:
            wanted.append(None)
        elif candidate.role == Role.NEW:
            wanted.append(())
        else:
            wanted.append(candidate.origin.guests if _volume_moved(outcome) > task.volume_change else None)
    return wanted


def _volume_moved(outcome: Relaxation | Rejected) -> float:
    return 0.0 if isinstance(outcome, Rejected) else abs(outcome.final.volume / outcome.initial.volume - 1)


def task_rows(
    task: Task,
    made: Sequence[Made],
    relaxed: Sequence[Relaxation | Rejected],
    analysed: Sequence[Analysis | None],
    provenance: Provenance,
    said: Sequence[Said | None] | None = None,
) -> list[Row]:
    """One row per candidate, whatever its outcome; with what the judge said, if the search has one."""
    answers = [None] * len(task) if said is None else said
    results = zip(task.candidates, made, relaxed, analysed, answers, strict=True)
    return [_row(task, *one, provenance) for one in results]


def failed_rows(task: Task, reason: str, detail: str, provenance: Provenance) -> list[Row]:
    """Rows of a task that could not be finished, so that it is not tried forever."""
    failed = {"status": Status.FAILED, "reason": reason, "detail": detail} | asdict(provenance)
    return [Row(**_planned(task, one) | failed) for one in task.candidates]


def _row(
    task: Task,
    candidate: Candidate,
    made: Made,
    relaxed: Relaxation | Rejected,
    analysis: Analysis | None,
    said: Said | None,
    provenance: Provenance,
) -> Row:
    found = _rejected(task, candidate, relaxed) if isinstance(relaxed, Rejected) else _relaxed(relaxed)
    if analysis is not None:
        found |= _analysed(task, candidate, analysis)
    if said is not None:
        found |= _said(said)
    return Row(
        **_planned(task, candidate) | found | asdict(provenance),
        evaluations=made.evaluations,
        score_model=made.score_model,
        initial=StoredCrystal.of(made.crystal),
        seconds_generate=made.seconds,
    )


def _planned(task: Task, candidate: Candidate) -> dict[str, Any]:
    """Columns that are known before the crystal is generated."""
    return {
        **asdict(candidate.origin),
        "candidate": task.name_of(candidate),
        "task": task.identity,
        "round": task.round,
        "role": candidate.role,
        "generator": candidate.generator,
        "formula": candidate.template.crystal.formula,
        "n_atoms": len(candidate.template.crystal),
        "generator_settings": candidate.settings_text,
        "relaxation_settings": task.relaxation.model_dump_json(),
        "seed": candidate.template.seed,
    }


def _rejected(task: Task, candidate: Candidate, outcome: Rejected) -> dict[str, Any]:
    repeats = outcome.duplicate_offset
    return {
        "status": Status.REJECTED,
        "reason": outcome.reason,
        "duplicate_of": None if repeats is None else task.name_of(candidate, before=repeats),
    }


def _relaxed(outcome: Relaxation) -> dict[str, Any]:
    relaxed = Status.RELAXED if outcome.converged else Status.UNCONVERGED
    status = relaxed if may_be_ranked(outcome) else Status.FAILED
    polished = outcome if isinstance(outcome, Polished) else None
    return {
        "status": status,
        "reason": "" if status == Status.RELAXED else outcome.reason,
        "detail": outcome.detail,
        "final": StoredCrystal.of(outcome.final),
        "volume_per_atom": outcome.final.volume / len(outcome.final),
        "energy_initial": outcome.energy_initial,
        "energy": outcome.energy_final,
        "max_force_initial": outcome.max_force_initial,
        "max_force": outcome.max_force,
        "pressure": outcome.pressure,
        "steps": outcome.steps,
        "n_independent_atoms": outcome.n_independent_atoms,
        "converged": outcome.converged,
        "polished": polished is not None,
        "polish_fall": polished.fall if polished else None,
        "saddle_fall": polished.saddle_fall if polished else None,
        "seconds_relax": outcome.seconds,
    }


def _analysed(task: Task, candidate: Candidate, analysis: Analysis) -> dict[str, Any]:
    group, name, repeats = analysis.space_group, task.name_of(candidate), analysis.repeats
    if isinstance(repeats, int):
        repeats = task.name_of(candidate, before=repeats)
    return {
        "space_group": group.symbol if group else None,
        "space_group_number": group.number if group else None,
        "symprec": group.symprec if group else None,
        "angle_tolerance": group.angle if group else None,
        "duplicate_of": repeats,
        "e_d": analysis.decomposition.e_d,
        "e_d_with_found": analysis.e_d_with_found,
        "known": analysis.known,
        "products": analysis.decomposition.products,
        "single_points": list(analysis.decomposition.single_points),
        "fingerprint": packed(analysis.fingerprint),
        "frameworks": [StoredFramework.of(f"{name}-f{i}", found) for i, found in enumerate(analysis.frameworks)],
        **({"guests": analysis.guests} if candidate.role == Role.NEW else {}),
        "seconds_analyse": analysis.seconds,
    }


def _said(said: Said) -> dict[str, Any]:
    return {
        "judge": said.judge,
        "e_d_judge": said.e_d,
        "e_d_judge_first": said.first,
        "energy_judge": said.energy,
        "products_judge": said.products,
        "final_judge": None if said.crystal is None else StoredCrystal.of(said.crystal),
        "fingerprint_judge": None if said.fingerprint is None else packed(said.fingerprint),
        "e_d_expected": said.expected,
        "e_d_expected_error": said.error,
        "seconds_judge": said.seconds,
    }
