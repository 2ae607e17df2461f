"""Training a score model: reading the configuration and plotting the training curves."""

from __future__ import annotations

import math
from pathlib import Path

import yaml
from matplotlib.figure import Figure
from pydantic import ValidationError

from model.diffusion.train import TrainConfig, read_log


def load_training(config: Path) -> TrainConfig:
    """Read the configuration of a training.

    Raises:
        ValueError: the file does not exist or is invalid.
    """
    if not config.is_file():
        raise ValueError(f"{config} does not exist")
    try:
        return TrainConfig.model_validate(yaml.safe_load(config.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{config}: {error}") from error


def draw_curves(folder: Path) -> Path | None:
    """Plot ``curves.png`` in the folder of a training: losses, and validation loss by noise level.

    Returns:
        its path; None if the log is empty.
    """
    log = read_log(folder)
    if not log:
        return None
    steps = [record["step"] for record in log]
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [record["train"] for record in log], label="train")
    left.plot(steps, [record["validation"] for record in log], label="validation, averaged weights")
    for name in log[-1]["by_noise"]:
        label = name.replace("-inf", " Å and above") if name.endswith("-inf") else f"{name} Å"
        right.plot(steps, [record["by_noise"].get(name, math.nan) for record in log], label=label)
    for axes, title in ((left, "loss"), (right, "validation by noise level")):
        axes.set(xlabel="step", ylabel=title, yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    left.legend(fontsize="small")
    right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    path = folder / "curves.png"
    figure.savefig(path, dpi=150)
    return path
