"""Training of the score network: deterministic, resumable at any step, one process.

Every step draws its batch and noise from (seed, step), so that a resumed run continues exactly where it stopped.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from model.batch import Batch
from model.checkpoint import AnyNetworkConfig, build_network, save_network, save_tensors, save_yaml
from model.dataset import CrystalTable, DataConfig, load_table
from model.loss import Objective, denoising_loss, training_example
from model.network import NetworkConfig, ScoreNetwork
from model.paper_network import PaperNetwork
from model.settings import Settings

Example = tuple[Batch, Batch, Tensor, Tensor]  # what `training_example` returns

NOISE_BINS = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, math.inf)  # Å
GUEST_BINS = (0.0, 0.15, 0.35, 0.65, 1.0)


class TrainConfig(Settings):
    """Everything `hostguide train` needs."""

    data: DataConfig
    network: AnyNetworkConfig = NetworkConfig()
    objective: Objective = Objective()
    seed: int = 0
    steps: int = 50_000
    atoms_per_batch: int = 288
    crystals_per_batch: int | None = Field(default=None, ge=1)  # if given, takes the place of atoms_per_batch
    learning_rate: float = 3e-3  # after the warm-up
    schedule: Literal["cosine", "constant", "trapezoid"] = "cosine"
    decay: int = Field(default=0, ge=0)  # trapezoid: steps at the end over which the rate falls to zero
    warmup: int = 500  # steps
    clip: float = 1.0  # norm of the gradient
    average: float = 0.999  # decay of the moving average of the weights, a step
    validate_every: int = 2_000
    save_every: int = 500
    validation_batches: int = 40


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero, or constant, or constant and a linear fall to zero."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "trapezoid":
        return config.learning_rate * min(1.0, (config.steps - step) / max(1, config.decay))
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Trainer:
    """One training run in one folder. `run` continues from whatever the folder holds."""

    def __init__(self, config: TrainConfig, folder: Path, *, device: str = "cpu") -> None:
        self.config, self.folder, self.device = config, folder, device
        self.table = load_table(config.data)
        self.validation = load_table(config.data.model_copy(update={"split": "val"}))
        torch.manual_seed(config.seed)
        self.network = build_network(config.network).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self, report: Callable[[dict[str, Any]], None] = print) -> dict[str, Any]:
        """Train to the last step and return the final validation record."""
        began, losses = time.monotonic(), []
        while self.step < self.config.steps:
            losses.append(self._train_step())
            self.step += 1
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                record = {
                    "step": self.step,
                    "train": float(np.mean(losses)),
                    "seconds_per_step": (time.monotonic() - began) / len(losses),
                    **self.validate(),
                }
                self._log(record)
                report(record)
                began, losses = time.monotonic(), []
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
        return self.validate()

    def _train_step(self) -> float:
        rng = np.random.default_rng([self.config.seed, self.step])
        loss = self._loss(self.network, self._example(self.table, rng)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        if torch.isfinite(norm):  # a lost step shows in the log, as a training loss that is not finite
            self.optimizer.step()
        self._update_average()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        current = self.network.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [current[name] for name in self.average], 1 - decay)

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Loss of the averaged weights on fixed crystals and noise: all, by noise level and by guest fraction."""
        network = build_network(self.config.network).to(self.device)
        network.load_state_dict(self.average)
        rows = np.concatenate([self._validation_rows(network, batch) for batch in self._validation_batches()])
        loss, sigma, fraction = rows.T
        return {
            "validation": float(loss.mean()),
            "by_noise": _binned(loss, sigma, NOISE_BINS),
            "by_guest_fraction": _binned(loss, fraction, GUEST_BINS),
        }

    def _example(self, table: CrystalTable, rng: np.random.Generator) -> Example:
        crystals = table.draw(self.config.atoms_per_batch, rng, crystals=self.config.crystals_per_batch)
        return training_example(crystals, self.config.objective, self.config.data.guests, rng, device=self.device)

    def _loss(self, network: ScoreNetwork | PaperNetwork, example: Example) -> Tensor:
        return denoising_loss(network, *example, kind=self.config.objective.loss)

    def _validation_batches(self) -> Iterator[Example]:
        for index in range(self.config.validation_batches):
            yield self._example(self.validation, np.random.default_rng([2**31, index]))

    def _validation_rows(self, network: ScoreNetwork | PaperNetwork, example: Example) -> np.ndarray:
        """(guests, 3): squared error, sigma, share of guests in the crystal."""
        clean, _, sigma, guest = example
        share = torch.zeros_like(sigma).index_add_(0, clean.owner, guest.to(sigma)) / clean.counts
        owner = clean.owner[guest]
        return torch.stack([self._loss(network, example), sigma[owner], share[owner]], dim=-1).cpu().numpy()

    def save(self) -> None:
        """Write the averaged weights with their card, and all that resuming needs."""
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors |= {f"average/{name}": value for name, value in self.average.items()}
        tensors["step"] = torch.tensor(self.step)
        save_tensors(tensors, self.folder / "resume.safetensors")
        save_network(self.average, self.card(), self.folder / "weights.safetensors")

    def card(self) -> dict[str, Any]:
        """What a person should know about the weights."""
        log = read_log(self.folder)
        return {
            "network": self.config.network.model_dump(mode="json"),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "step": self.step,
            "crystals": len(self.table),
            "data_digest": self.table.digest,
            "metrics": log[-1] if log else None,
            "config": self.config.model_dump(mode="json"),
        }

    def _resume(self) -> None:
        state_file, config_file = self.folder / "resume.safetensors", self.folder / "config.yaml"
        if not state_file.exists():
            save_yaml(self.config.model_dump(mode="json"), config_file)
            return
        tensors = load_file(state_file, device=self.device)
        self.step = int(tensors.pop("step"))
        if not same_until(self.step, _read_config(config_file), self.config):
            raise ValueError(
                f"{self.folder} holds a run with another configuration; choose another folder or remove it"
            )
        save_yaml(self.config.model_dump(mode="json"), config_file)
        self.network.load_state_dict(_under(tensors, "weights/"))
        self.average = _under(tensors, "average/")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "adam/").items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        _truncate_log(self.folder, self.step)

    def _log(self, record: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def same_until(step: int, one: TrainConfig, other: TrainConfig) -> bool:
    """Whether two configurations train alike up to ``step``: a trapezoid may be lengthened before its rate falls."""
    if one.schedule == "trapezoid" and step <= min(c.steps - c.decay for c in (one, other)):
        other = other.model_copy(update={"steps": one.steps, "decay": one.decay})
    return one == other


def _read_config(path: Path) -> TrainConfig:
    """Settings of an earlier run; those that did not exist then have their defaults."""
    return TrainConfig.model_validate(yaml.safe_load(path.read_text()))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Validation records of a run, in order."""
    file = folder / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _truncate_log(folder: Path, step: int) -> None:
    """Forget records later than the checkpoint: those steps are run again."""
    kept = [record for record in read_log(folder) if record["step"] <= step]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _binned(loss: np.ndarray, key: np.ndarray, edges: tuple[float, ...]) -> dict[str, float]:
    inside = {f"{low:g}-{high:g}": (key > low) & (key <= high) for low, high in itertools.pairwise(edges)}
    return {name: float(loss[mask].mean()) for name, mask in inside.items() if mask.any()}
