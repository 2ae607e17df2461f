"""`hostguide train` as a person sees it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import yaml
from pydantic import ValidationError
from rich.console import Console

from model.diffusion.checkpoint import default_device
from model.diffusion.train import TrainConfig, Trainer, read_log


def train_model(
    console: Console,
    config: Path,
    folder: Path,
    *,
    device: str = "auto",
    threads: int = 1,
    minutes: float | None = None,
    workers: int = 1,
) -> None:
    """Train, or go on training, in one folder; with several workers each takes its share of every batch."""
    settings = load_training(config)
    device = default_device() if device == "auto" else device
    seconds = math.inf if minutes is None else 60 * minutes

    def report(record: dict[str, Any]) -> None:
        console.print(
            f"step {record['step']:>7}  train {record['train']:.4f}  validation {record['validation']:.4f}"
            f"  {record['seconds_per_step'] * 1e3:.0f} ms a step"
        )
        draw_curves(folder)

    if workers > 1:
        from actors.training import train_together  # starts Ray, which one process does without

        step = train_together(settings, folder, device=device, workers=workers, seconds=seconds)
        for record in read_log(folder)[-1:]:
            report(record)
    else:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        trainer = Trainer(settings, folder, device=device)
        card = trainer.card()
        console.print(f"{card['crystals']} crystals, {card['parameters']} parameters, from step {trainer.step}")
        trainer.run(report, seconds=seconds)
        step = trainer.step
    if step < settings.steps:
        console.print(f"Stopped at step {step} of {settings.steps}. The same command goes on.")
    console.print(f"Weights: {folder / 'weights.safetensors'}", soft_wrap=True)


def load_training(config: Path) -> TrainConfig:
    """Read a training's configuration; raises ValueError that names the file and what is wrong with it."""
    if not config.is_file():
        raise ValueError(f"{config} does not exist")
    try:
        return TrainConfig.model_validate(yaml.safe_load(config.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ValueError(f"{config}: {error}") from error


def draw_curves(folder: Path) -> Path | None:
    """Draw ``curves.png`` from a training's log: losses, and validation by noise level; None without a record."""
    log = read_log(folder)
    if not log:
        return None
    steps = [record["step"] for record in log]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
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
    plt.close(figure)
    return path
