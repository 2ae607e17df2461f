"""`hostguide tune`: settings of the samplers and of the relaxation for one system, found by trying."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from model.diffusion.checkpoint import save_yaml
from model.settings import Settings
from search.config import Range, SearchConfig, changed, check_config, load_config
from search.planning.campaign import read_trials
from search.planning.prepare import load_reference, remember, same_search
from search.planning.tuning import COST, QUALITY, Trial, chosen
from search.reporting.tuning_plots import plot_study
from search.running.pipeline import load_stages, search_here
from search.storage.paths import RunPath, beside
from search.storage.results import ResultStore

# Ranges for samplers of which the configuration tunes nothing.
RANGES: dict[str, dict[str, Range]] = {
    "predictor-corrector": {"steps": (20, 200), "correctors": (0, 5), "snr": (0.05, 0.5)},
    "heun": {"steps": (6, 32), "churn": (0.0, 1.0)},
    "ancestral": {"steps": (8, 64), "temperature": (0.2, 1.2)},
}
INPAINTING_RANGES: dict[str, dict[str, Range]] = {"predictor-corrector": {"resamples": (1, 4), "jump": (5, 20)}}


def tune(console: Console, path: Path, *, trials: int, run: RunPath, out: Path) -> None:
    """Try batches, write the configuration with the best settings, draw Optuna's pictures.

    Args:
        console: where progress goes.
        path: configuration of the search. Its ``tuning`` says what is tuned; if that is empty, the samplers are.
        trials: batches of new crystals, and as many of filled frameworks.
        run: folder of the batches; what it holds already is taken over.
        out: file of the configuration that is written.
    """
    wanted = load_config(path)
    config = tuning_search(wanted, trials)
    reference = load_reference(config)
    run.mkdir(parents=True, exist_ok=True)
    same_search(run, config, reference)
    remember(run, config, reference)
    rows: list[Mapping[str, Any]] = []
    for made in search_here(config, reference, ResultStore(run), load_stages(config, reference)):
        rows += made
        relaxed = sum(row["status"] == "relaxed" for row in made)
        console.print(f"{made[0]['task']}: {relaxed} of {len(made)} relaxed, {made[0]['evaluations']} evaluations")
    found = read_trials(config, rows)
    best = {
        part: chosen(found.trials[part], ranges)
        for part, ranges in found.ranges.items()
        if ranges and found.trials[part]
    }
    for part, trial in best.items():
        console.print(f"{part}: {_described(trial, found.groups[part])}")
        for picture in plot_study(found.study(part), beside(run) / "plots", part):
            console.print(str(picture), soft_wrap=True)
    save_yaml(with_settings(wanted, best).model_dump(mode="json"), out)
    console.print(f"Configuration with these settings: {out}", soft_wrap=True)


def tuning_search(config: SearchConfig, trials: int) -> SearchConfig:
    """The search that tries settings: every round is one batch of new crystals and one of filled frameworks.

    All compositions get equal shares, so that batches can be compared.
    """
    content = config.model_dump(mode="json")
    if not any(ranges for ranges in content["tuning"].values()):
        kinds = config.generation.kind, config.inpainting.kind
        content["tuning"]["generation"] = RANGES[kinds[0]]
        content["tuning"]["inpainting"] = RANGES[kinds[1]] | INPAINTING_RANGES.get(kinds[1], {})
    batch = config.policy.batch
    content["generators"] = ["diffusion", "inpainting"]
    content["policy"] |= {
        "rounds": trials,
        "generated": batch,
        "inpainted": batch,
        "feedback": False,
        "lookahead": 0,
        "stop": {},
    }
    return check_config(content, source="tune")


def with_settings(config: SearchConfig, best: Mapping[str, Trial]) -> SearchConfig:
    """The configuration with the settings of the best trials, and nothing left to tune."""
    updates: dict[str, Settings] = {}
    for part, trial in best.items():
        name = "policy" if part == "samples" else part
        updates[name] = changed(getattr(config, name), trial.values)
    content = config.model_dump(mode="json") | {name: group.model_dump(mode="json") for name, group in updates.items()}
    return check_config(content | {"tuning": {}}, source="tune")


def _described(trial: Trial, group: Settings) -> str:
    values = ", ".join(f"{name} {getattr(changed(group, trial.values), name):.4g}" for name in trial.values)
    return f"{values} ({QUALITY} {trial.quality:.3f}, {COST} {trial.cost:.0f})"
