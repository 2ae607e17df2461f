"""Tuning settings with Optuna during or before a search: one trial is one batch, with quality and cost as objectives.

No study is stored. It is rebuilt from the results whenever a batch is planned, so that a resumed search gets the same
suggestions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from model.generators.registry import GENERATORS
from model.generators.roles import Role
from model.settings import Settings
from search.config import Range, Tuning, changed
from search.storage.rows import HistoryRow, PendingRow, Status

STARTUP = 10  # random trials before Optuna's sampler uses its model
Some = TypeVar("Some", bound=PendingRow)
QUALITY, COST = "quality", "work per atom"
RELAXATION, SAMPLES = "relaxation", "samples"  # parts that are not generators
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Trial:
    """One batch.

    Attributes:
        values: of the tuned fields.
        quality: see `quality`; None while the batch is unfinished.
        cost: work per atom; None while the batch is unfinished.
    """

    values: Mapping[str, float]
    quality: float | None = None
    cost: float | None = None


def suggest(
    group: Settings, ranges: Mapping[str, Range], trials: Sequence[Trial], seed: int, *, startup: int = STARTUP
) -> dict[str, float]:
    """Values for the next batch.

    Args:
        group: settings to tune; integer fields stay integers.
        ranges: fields and their ranges.
        trials: batches so far, including unfinished ones, in a fixed order.
        seed: of Optuna's sampler (multivariate TPE; unfinished batches count as bad ones).
        startup: number of random batches at the start.
    """
    study = make_study(group, ranges, trials, seed=seed, startup=startup)
    return {name: float(value) for name, value in study.ask(_distributions(group, ranges)).params.items()}


def make_study(
    group: Settings, ranges: Mapping[str, Range], trials: Iterable[Trial], *, seed: int = 0, startup: int = STARTUP
) -> optuna.Study:
    """An in-memory Optuna study with the trials: maximise quality, minimise cost."""
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=startup, **_TPE)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    kinds = _distributions(group, ranges)
    for trial in trials:
        params = {name: kind.to_external_repr(trial.values[name]) for name, kind in kinds.items()}
        done = {"values": [trial.quality, trial.cost]} if trial.quality is not None else {"state": TrialState.RUNNING}
        study.add_trial(create_trial(params=params, distributions=kinds, **done))
    return study


_TPE: dict[str, Any] = {"multivariate": True, "constant_liar": True}


def _distributions(group: Settings, ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    return {name: _distribution(getattr(group, name), low, high) for name, (low, high) in sorted(ranges.items())}


def _distribution(value: float, low: float, high: float) -> BaseDistribution:
    if isinstance(value, int):
        return IntDistribution(math.ceil(low), math.floor(high))
    return FloatDistribution(low, high, log=low > 0 and high / low >= 10)


def quality(rows: Sequence[HistoryRow], reward_threshold: float) -> float:
    """Mean over a batch of exp(−E_d/threshold), 1 on or below the hull, 0 for candidates that did not relax."""
    return float(np.mean([_reward(row, reward_threshold) for row in rows]))


def _reward(row: HistoryRow, reward_threshold: float) -> float:
    if row.status != Status.RELAXED or row.e_d is None:
        return 0.0
    return math.exp(-max(0.0, row.e_d) / reward_threshold)


def chosen(trials: Sequence[Trial], ranges: Mapping[str, Range]) -> Trial:
    """The trial with the highest quality per unit of work, both averaged over the trial and its nearest neighbours.

    A single batch is a noisy sample. The average covers a tenth of the trials but at least five, the trial itself
    included; distances are measured in units of the ranges.

    Raises:
        ValueError: no trial is complete.
    """
    done = [trial for trial in trials if trial.quality is not None]
    if not done:
        raise ValueError("no batch is complete, so there is no trial to choose")
    low, high = np.array([ranges[name] for name in sorted(ranges)], dtype=float).T
    points = (np.array([[trial.values[name] for name in sorted(ranges)] for trial in done]) - low) / (high - low)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.argsort(distance, axis=1, kind="stable")[:, : max(5, len(done) // 10)]
    gain, cost = (np.array([getattr(trial, name) for trial in done])[near].mean(1) for name in ("quality", "cost"))
    return done[int(np.argmax(gain / np.maximum(cost, 1e-9)))]


class Tuner:
    """Collects the trials of the tuned settings and suggests values for the next batch.

    Args:
        tuning: what is tuned.
        groups: part -> its settings as configured; for ``samples``, the policy.
        rows: results in order of candidate name.
        reward_threshold: eV/atom, scale of E_d, see `quality`.
        cost: work per atom of one candidate.
    """

    def __init__(
        self,
        tuning: Tuning,
        groups: Mapping[str, Settings],
        rows: Sequence[HistoryRow],
        reward_threshold: float,
        cost: Callable[[HistoryRow], float],
    ) -> None:
        self.groups, self.reward_threshold, self.cost = groups, reward_threshold, cost
        self.ranges = tuning.parts
        self.trials = {part: list(self._read(part, rows)) for part in self.ranges}

    def next(self, part: str, seed: int) -> Settings:
        """Settings of a part for the next batch; as configured if nothing is tuned."""
        group, ranges = self.groups[part], self.ranges[part]
        if not ranges:
            return group
        values = suggest(group, ranges, self.trials[part], seed)
        self.trials[part].append(Trial(values))
        return changed(group, values)

    def note_pending(self, rows: Sequence[PendingRow]) -> None:
        """Add batches that have no results yet."""
        for part in self.trials:
            self.trials[part] += [Trial(values) for values, _ in self._batches(part, rows)]

    def study(self, part: str) -> optuna.Study:
        """All batches of a part as a study."""
        return make_study(self.groups[part], self.ranges[part], self.trials[part])

    def _read(self, part: str, rows: Sequence[HistoryRow]) -> Iterator[Trial]:
        for values, batch in self._batches(part, rows):
            cost = float(np.mean([self.cost(row) for row in batch]))
            yield Trial(values, quality(batch, self.reward_threshold), cost)

    def _batches(self, part: str, rows: Sequence[Some]) -> list[tuple[dict[str, float], list[Some]]]:
        """The tuned values and the rows of all batches of a part; none if nothing is tuned."""
        batches: dict[str | int, tuple[dict[str, float], list[Some]]] = {}
        for row in rows if self.ranges[part] else ():
            used = stored_values(row, part, self.ranges[part])
            if used is not None:
                batches.setdefault(row.round if part == SAMPLES else row.task, (used, []))[1].append(row)
        return list(batches.values())


def stored_values(row: PendingRow, part: str, ranges: Mapping[str, Range]) -> dict[str, float] | None:
    """Values of the tuned fields that a candidate was made with; None if some of them do not apply to it."""
    if part == SAMPLES:
        return {SAMPLES: row.samples} if row.role == Role.FROM_HOST and row.samples is not None else None
    if part in GENERATORS and row.generator != part:
        return None
    group = json.loads(row.relaxation_settings if part == RELAXATION else row.generator_settings)
    return {name: group[name] for name in ranges} if set(ranges) <= set(group) else None
