"""`hostguide train`: train a score model; losses go to the console and to `curves.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.common import MinutesOption, ThreadsOption, console, seconds_of, use_threads


def train(
    config: Annotated[Path, typer.Argument(help="YAML file, for example configs/train/small.yaml")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the training (default: runs/train-<config>). An existing training is resumed."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: ThreadsOption = 1,
    minutes: MinutesOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Ray processes that share every batch, one GPU each")] = 1,
) -> None:
    """Train a score model and plot curves.png in its folder. Rerun the same command to resume."""
    import torch

    from model.diffusion.checkpoint import default_device
    from model.diffusion.train import Trainer, read_log
    from search.studies.training import draw_curves, load_training

    settings = load_training(config)
    folder = out or Path("runs") / f"train-{config.stem}"
    device = default_device() if device == "auto" else device
    seconds = seconds_of(minutes)

    def report(record: dict[str, Any]) -> None:
        console.print(
            f"step {record['step']:>7}  train {record['train']:.4f}  validation {record['validation']:.4f}"
            f"  {record['seconds_per_step'] * 1e3:.0f} ms per step"
        )
        draw_curves(folder)

    if workers > 1:
        from actors.training import train_together  # imports Ray, which a single process does not need

        step = train_together(settings, folder, device=device, workers=workers, seconds=seconds)
        for record in read_log(folder)[-1:]:
            report(record)
    else:
        use_threads(threads)
        torch.set_flush_denormal(True)
        trainer = Trainer(settings, folder, device=device)
        card = trainer.card()
        console.print(f"{card['crystals']} crystals, {card['parameters']} parameters, from step {trainer.step}")
        trainer.run(report, seconds=seconds)
        step = trainer.step
    if step < settings.steps:
        console.print(f"Stopped at step {step} of {settings.steps}. Rerun the same command to resume.")
    console.print(f"Weights: {folder / 'weights.safetensors'}", soft_wrap=True)
