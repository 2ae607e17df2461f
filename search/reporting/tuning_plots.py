"""Optuna's plots of the settings that a search tuned."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.trial import TrialState

from search.config import SearchConfig
from search.planning.campaign import read_trials
from search.planning.tuning import COST, QUALITY
from search.storage.paths import RunPath
from search.storage.results import ResultStore


def plot_study(study: optuna.Study, folder: Path, name: str) -> list[Path]:
    """Write Optuna's plots as HTML: history, Pareto front, and importances if several fields were tuned."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = optuna.visualization
    pictures = {
        "history": draw.plot_optimization_history(study, target=lambda trial: trial.values[0], target_name=QUALITY),
        "front": draw.plot_pareto_front(study, target_names=[QUALITY, COST]),
    }
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({name for trial in complete for name in trial.params}) > 1 and len(complete) > 3:
        with warnings.catch_warnings():  # the warning that low values count as good; the sign below handles it
            warnings.filterwarnings("ignore", message="PedAnova", category=UserWarning)
            pictures["importance"] = draw.plot_param_importances(
                study,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                target=lambda trial: -trial.values[0],
                target_name=QUALITY,
            )
    paths = []
    for what, picture in pictures.items():
        paths.append(folder / f"{name}-{what}.html")
        picture.write_html(paths[-1], include_plotlyjs="directory")
    return paths


def plot_tuning(config: SearchConfig, run: RunPath, out: Path) -> list[Path]:
    """Optuna's plots of all settings that a stored search tuned."""
    store = ResultStore(run)
    found = read_trials(config, list(store.rows(sorted(store.tasks()))))
    parts = [part for part, ranges in found.ranges.items() if ranges and found.trials[part]]
    return [path for part in parts for path in plot_study(found.study(part), out, part)]
