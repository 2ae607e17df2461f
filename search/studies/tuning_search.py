"""A search that only tries settings of one system, and the configuration with the best of them: `hostguide tune`."""

from __future__ import annotations

from collections.abc import Mapping

from model.settings import Settings
from search.config import Range, SearchConfig, changed, check_config
from search.planning.tuning import Trial

# Ranges for samplers of which the configuration tunes nothing.
RANGES: dict[str, dict[str, Range]] = {
    "predictor-corrector": {"steps": (20, 200), "correctors": (0, 5), "snr": (0.05, 0.5)},
    "heun": {"steps": (6, 32), "churn": (0.0, 1.0)},
    "ancestral": {"steps": (8, 64), "temperature": (0.2, 1.2)},
}
INPAINTING_RANGES: dict[str, dict[str, Range]] = {"predictor-corrector": {"resamples": (1, 4), "jump": (5, 20)}}


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
