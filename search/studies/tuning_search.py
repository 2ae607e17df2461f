"""Tuning settings before a search: the search that tries them, and the tuned configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from model.generators.registry import GENERATORS
from model.generators.roles import Role
from search.config import Range, SearchConfig, changed
from search.config_file import check_config
from search.planning.campaign import read_trials
from search.planning.prepare import load_reference, same_search, write_run_metadata
from search.planning.tuning import SAMPLES, Trial, Tuner, chosen
from search.running.pipeline import load_stages, search_here
from search.storage.paths import RunPath, require_lasting
from search.storage.results import ResultStore
from search.storage.rows import Row

# Ranges to use if the configuration specifies none.
RANGES: dict[str, dict[str, Range]] = {
    "predictor-corrector": {"steps": (20, 200), "correctors": (0, 5), "snr": (0.05, 0.5)},
    "heun": {"steps": (6, 32), "churn": (0.0, 1.0)},
    "ancestral": {"steps": (8, 64), "temperature": (0.2, 1.2)},
}
INPAINTING_RANGES: dict[str, dict[str, Range]] = {"predictor-corrector": {"resamples": (1, 4), "jump": (5, 20)}}


class Tuned(NamedTuple):
    """Outcome of tuning.

    Attributes:
        tuner: all trials.
        best: part -> its best trial, for the parts that were tuned.
        config: the configuration with the settings of these trials.
    """

    tuner: Tuner
    best: dict[str, Trial]
    config: SearchConfig


def tune(
    config: SearchConfig, trials: int, folder: RunPath, *, report: Callable[[list[Row]], None] = lambda rows: None
) -> Tuned:
    """Try settings in this process and choose the best ones.

    Args:
        config: what to tune, and for which compositions.
        trials: number of batches of each kind.
        folder: of the run that tries them; an existing one is resumed.
        report: called with the rows of each finished batch.

    Raises:
        ValueError: the folder holds another search, or no batch is complete.
    """
    require_lasting(folder)
    trying = tuning_search(config, trials)
    reference = load_reference(trying, folder)
    folder.mkdir(parents=True, exist_ok=True)
    same_search(folder, trying, reference)
    write_run_metadata(folder, trying, reference)
    rows: list[Row] = []
    for made in search_here(trying, reference, ResultStore(folder), load_stages(trying, reference)):
        rows += made
        report(made)
    tuner = read_trials(trying, rows)
    best = {
        part: chosen(tuner.trials[part], ranges)
        for part, ranges in tuner.ranges.items()
        if ranges and tuner.trials[part]
    }
    return Tuned(tuner, best, with_settings(config, best))


def tuning_search(config: SearchConfig, trials: int) -> SearchConfig:
    """The search that tries settings: every round has a batch of each generator that can be tuned.

    All compositions get equal shares, so that batches are comparable.
    """
    content = config.model_dump(mode="json")
    tunable = [name for name, row in GENERATORS.items() if row.is_tunable]
    if config.tuning.is_empty:
        content["tuning"]["sampling"] = {name: _ranges(name, content["sampling"][name]) for name in tunable}
    content["generators"] = tunable
    content["judge"] = None
    content["policy"] |= {
        "rounds": trials,
        "candidates_per_round": len(tunable) * config.policy.batch,
        "new_share": sum(GENERATORS[name].role == Role.NEW for name in tunable) / len(tunable),
        "feedback": False,
        "rounds_ahead": 0,
        "stop": {},
    }
    return check_config(content, source="tune")


def _ranges(generator: str, settings: Mapping[str, Any]) -> dict[str, Range]:
    kind = settings.get("kind", "")
    more = INPAINTING_RANGES if GENERATORS[generator].role == Role.FROM_HOST else {}
    return RANGES.get(kind, {}) | more.get(kind, {})


def with_settings(config: SearchConfig, best: Mapping[str, Trial]) -> SearchConfig:
    """The configuration with the settings of the best trials and without tuning."""
    content = config.model_dump(mode="json")
    for part, trial in best.items():
        if part in config.sampling:
            content["sampling"][part] = changed(config.sampling[part], trial.values).model_dump(mode="json")
        else:
            name = "policy" if part == SAMPLES else part
            content[name] = changed(getattr(config, name), trial.values).model_dump(mode="json")
    return check_config(content | {"tuning": {}}, source="tune")
