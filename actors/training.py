"""Training in several processes with Ray Train: a thin wrapper around `model.diffusion.train.Trainer`."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer, get_device

from actors.cluster import connected
from model.diffusion.train import TrainConfig, Trainer, step_reached


def train_together(
    config: TrainConfig,
    folder: Path,
    *,
    device: str,
    workers: int,
    seconds: float = math.inf,
    address: str = "local",
) -> int:
    """Train with ``workers`` processes that share every batch; the result equals that of one process up to rounding.

    Args:
        config: of the training.
        folder: of the training, accessible to all processes.
        device: ``cpu`` (communication by gloo) or ``cuda`` (by NCCL, one GPU each).
        workers: number of processes.
        seconds: stop and save after about this time.
        address: of Ray; ``local`` starts a private instance.

    Returns:
        the step that was reached.

    Raises:
        ValueError: there are not enough CPUs or GPUs.
    """
    cuda = device.startswith("cuda")
    with connected(address) as capacity, tempfile.TemporaryDirectory() as scratch:
        there = capacity.gpus if cuda else capacity.cpus
        if workers > there:
            kind = "GPUs" if cuda else "CPUs"
            raise ValueError(f"{workers} workers need as many {kind}; Ray has {there}. Use --workers {max(1, there)}")
        settings = {"config": config.model_dump(mode="json"), "folder": str(folder.absolute()), "seconds": seconds}
        trainer = TorchTrainer(
            _work,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda),
            run_config=RunConfig(storage_path=scratch),
        )
        trainer.fit()
    return step_reached(folder)


def _work(settings: dict[str, Any]) -> None:
    """Run in each process; Ray has set up ``torch.distributed``."""
    torch.set_num_threads(1)
    context = get_context()
    trainer = Trainer(
        TrainConfig.model_validate(settings["config"]),
        Path(settings["folder"]),
        device=str(get_device()),
        rank=context.get_world_rank(),
        world=context.get_world_size(),
    )
    trainer.run(lambda record: None, seconds=settings["seconds"])
