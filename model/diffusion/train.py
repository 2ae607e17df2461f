"""Training of the score network: deterministic, resumable at any step, in one process or several.

Every step draws its batch and noise from (seed, step), so that a resumed run continues exactly where it stopped.
Several processes draw the same batch, each takes its share of the crystals, and their gradients are added; the result
is the same as with one process.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import yaml
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.crystals.batch import Batch
from model.diffusion.checkpoint import AnyNetworkConfig, build_network, save_network, save_tensors, save_yaml
from model.diffusion.dataset import CrystalTable, DataConfig, load_crystals
from model.diffusion.loss import Objective, denoising_loss, training_example
from model.diffusion.network import NetworkConfig, ScoreNetwork
from model.settings import Settings

if TYPE_CHECKING:
    from model.diffusion.paper_network import PaperNetwork

Example = tuple[Batch, Batch, Tensor, Tensor]  # what `training_example` returns

NOISE_BINS = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, math.inf)  # Å
LOADERS = 4  # processes that prepare batches for a GPU
GUEST_BINS = (0.0, 0.15, 0.35, 0.65, 1.0)


class TrainConfig(Settings):
    """Everything `hostguide train` needs."""

    data: DataConfig
    network: AnyNetworkConfig = NetworkConfig()
    objective: Objective = Objective()
    seed: int = 0
    steps: int = 50_000
    atoms_per_batch: int = 288
    crystals_per_batch: int | None = Field(default=None, ge=1)  # replaces atoms_per_batch if given
    edges_per_batch: int | None = Field(default=None, ge=1)  # the same: edges within the cutoff, by the mean density
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward pass; weights and optimizer are float32
    learning_rate: float = 3e-3  # after the warm-up
    schedule: Literal["cosine", "constant", "trapezoid"] = "cosine"
    decay: int = Field(default=0, ge=0)  # trapezoid: steps at the end over which the rate falls to zero
    warmup: int = 500  # steps
    clip: float = 1.0  # norm of the gradient
    average: float = 0.999  # decay of the moving average of the weights, per step
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


class Examples(Dataset[Example]):
    """The training example of each step: a function of the seed and the step alone."""

    def __init__(self, config: TrainConfig, table: CrystalTable) -> None:
        self.config, self.table = config, table

    def __getitem__(self, step: int) -> Example:
        """The example of a step, on the CPU."""
        return draw_example(self.config, self.table, (self.config.seed, step))


def draw_example(config: TrainConfig, table: CrystalTable, seed: tuple[int, int]) -> Example:
    """Draw crystals and their noise, on the CPU."""
    rng = np.random.default_rng(seed)
    if config.edges_per_batch is not None:
        crystals = table.draw_edges(config.edges_per_batch, rng, cutoff=config.network.cutoff)
    else:
        crystals = table.draw(config.atoms_per_batch, rng, crystals=config.crystals_per_batch)
    return training_example(crystals, config.objective, config.data.guests, rng)


def moved(example: Example, device: str) -> Example:
    """The example on a device."""
    clean, noised, sigma, guest = example
    return clean.to(device), noised.to(device), sigma.to(device), guest.to(device)


class Trainer:
    """One training run in one folder; `run` resumes from the state stored there.

    Args:
        config: what to train.
        folder: of the run; read by all processes, written by the first.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        rank, world: number of this process, and of all that train together. With more than one,
            ``torch.distributed`` must be initialised.

    Raises:
        ValueError: the folder contains a run with a different configuration, or there are no training data.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, *, device: str = "cpu", rank: int = 0, world: int = 1
    ) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.rank, self.world = rank, world
        self.table = load_crystals(config.data)
        self.validation = load_crystals(config.data.model_copy(update={"split": "val"}))
        torch.manual_seed(config.seed)
        self.network = build_network(config.network).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(
        self, report: Callable[[dict[str, Any]], None] = print, *, seconds: float = math.inf
    ) -> dict[str, Any] | None:
        """Train to the last step, or for about ``seconds``; return the final validation record if it got that far."""
        started = began = time.monotonic()
        losses: list[float] = []
        for example in self._examples():
            losses.append(self._train_step(moved(example, self.device)))
            self.step += 1
            last = self.step == self.config.steps
            if self.step % self.config.validate_every == 0 or last:
                if self.rank == 0:
                    self._record(losses, began, report)
                began, losses = time.monotonic(), []
            stop = self.step % 10 == 0 and self._agreed(time.monotonic() - started > seconds)
            if self.rank == 0 and (self.step % self.config.save_every == 0 or last or stop):
                self.save()
            if stop and not last:
                return None
        return self.validate()

    def _record(self, losses: list[float], began: float, report: Callable[[dict[str, Any]], None]) -> None:
        record = {
            "step": self.step,
            "train": float(np.mean(losses)),
            "seconds_per_step": (time.monotonic() - began) / len(losses),
            **self.validate(),
        }
        self._log(record)
        report(record)

    def _examples(self) -> Iterator[Example]:
        """Those of the remaining steps; for a GPU they are prepared in advance by other processes."""
        loaders = LOADERS if self.device.startswith("cuda") else 0
        steps = range(self.step, self.config.steps)
        return iter(DataLoader(Examples(self.config, self.table), batch_size=None, sampler=steps, num_workers=loaders))

    def _train_step(self, example: Example) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(example)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        if torch.isfinite(norm):  # a skipped step shows in the log as a training loss that is not finite
            self.optimizer.step()
        self._update_average()
        return loss

    def backward(self, example: Example) -> float:
        """Set the gradients of the mean loss over all guests of a batch, of all processes; return that loss."""
        if self.world == 1:
            loss = self._training_loss(example).mean()
            loss.backward()
            return float(loss.detach())
        return self._summed(self.backward_share(example, self.rank, self.world))

    def backward_share(self, example: Example, rank: int, world: int) -> float:
        """Add the gradients of every ``world``-th crystal from ``rank`` on; return their part of the loss."""
        clean, noised, sigma, guest = example
        keep = torch.arange(len(clean), device=sigma.device) % world == rank
        if not keep.any():
            return 0.0
        mine = clean.select(keep), noised.select(keep), sigma[keep], guest[keep[clean.owner]]
        loss = self._training_loss(mine).sum() / guest.sum()
        loss.backward()
        return float(loss.detach())

    def _summed(self, loss: float) -> float:
        """Sum gradients and loss over the processes."""
        parameters = list(self.network.parameters())
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([part.flatten() for part in parts] + [torch.tensor([loss], device=parts[0].device)])
        torch.distributed.all_reduce(flat)
        *gradients, total = flat.split([*(part.numel() for part in parts), 1])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return float(total)

    def _agreed(self, stop: bool) -> bool:
        """Whether the first process wants to stop, in every process."""
        if self.world == 1:
            return stop
        flag = torch.tensor([float(stop)], device=self.device)
        torch.distributed.broadcast(flag, src=0)
        return bool(flag)

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

    def _loss(self, network: ScoreNetwork | PaperNetwork, example: Example) -> Tensor:
        return denoising_loss(network, *example, kind=self.config.objective.loss)

    def _training_loss(self, example: Example) -> Tensor:
        """As `_loss`, in the precision of the configuration."""
        objective, precision = self.config.objective, self.config.precision
        return denoising_loss(self.network, *example, kind=objective.loss, precision=precision)

    def _validation_batches(self) -> Iterator[Example]:
        for index in range(self.config.validation_batches):
            yield moved(draw_example(self.config, self.validation, (2**31, index)), self.device)

    def _validation_rows(self, network: ScoreNetwork | PaperNetwork, example: Example) -> np.ndarray:
        """(guests, 3): squared error, sigma, share of guests in the crystal."""
        clean, _, sigma, guest = example
        share = torch.zeros_like(sigma).index_add_(0, clean.owner, guest.to(sigma)) / clean.counts
        owner = clean.owner[guest]
        return torch.stack([self._loss(network, example), sigma[owner], share[owner]], dim=-1).cpu().numpy()

    def save(self) -> None:
        """Write the averaged weights with their card, and the state that resuming needs."""
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors |= {f"average/{name}": value for name, value in self.average.items()}
        tensors["step"] = torch.tensor(self.step)
        save_tensors(tensors, self.folder / "resume.safetensors")
        save_network(self.average, self.card(), self.folder / "weights.safetensors")

    def card(self) -> dict[str, Any]:
        """What is recorded about the weights."""
        log = read_log(self.folder)
        return {
            "network": self.config.network.model_dump(mode="json"),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "step": self.step,
            "crystals": len(self.table),
            "data_digest": self.table.digest,
            "metrics": log[-1] if log else None,
            "made_with": made_with(),
            "config": self.config.model_dump(mode="json"),
        }

    def _resume(self) -> None:
        state_file, config_file = self.folder / "resume.safetensors", self.folder / "config.yaml"
        if not state_file.exists():
            self._save_config(config_file)
            return
        tensors = load_file(state_file, device=self.device)
        self.step = int(tensors.pop("step"))
        if not same_until(self.step, _read_config(config_file), self.config):
            raise ValueError(
                f"{self.folder} contains a run with a different configuration; choose another folder or remove it"
            )
        self._save_config(config_file)
        self.network.load_state_dict(_under(tensors, "weights/"))
        self.average = _under(tensors, "average/")
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "adam/").items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.rank == 0:
            _truncate_log(self.folder, self.step)

    def _save_config(self, path: Path) -> None:
        if self.rank == 0:
            save_yaml(self.config.model_dump(mode="json"), path)

    def _log(self, record: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def step_reached(folder: Path) -> int:
    """Steps of a run up to its last save; 0 without one."""
    file = folder / "resume.safetensors"
    return int(load_file(file)["step"]) if file.exists() else 0


def made_with() -> dict[str, str]:
    """Versions, and the commit of this code where it is a git checkout (``+`` if it was changed since)."""
    versions = {name: version(name) for name in ("hostguide", "torch", "e3nn", "numpy")}
    return {"python": platform.python_version(), **versions, "commit": _commit()}


def _commit() -> str:
    options = ["--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    command = ["git", "-C", str(Path(__file__).parent), "describe", *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def same_until(step: int, one: TrainConfig, other: TrainConfig) -> bool:
    """Whether two configurations are equivalent up to ``step``: a trapezoid may be extended until its rate falls."""
    if one.schedule == "trapezoid" and step <= min(c.steps - c.decay for c in (one, other)):
        other = other.model_copy(update={"steps": one.steps, "decay": one.decay})
    return one == other


def _read_config(path: Path) -> TrainConfig:
    """Configuration of an earlier run; settings that did not exist then have their defaults."""
    return TrainConfig.model_validate(yaml.safe_load(path.read_text()))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Validation records of a run, in order."""
    file = folder / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _truncate_log(folder: Path, step: int) -> None:
    """Remove records later than the checkpoint, because those steps are repeated."""
    kept = [record for record in read_log(folder) if record["step"] <= step]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _binned(loss: np.ndarray, key: np.ndarray, edges: tuple[float, ...]) -> dict[str, float]:
    inside = {f"{low:g}-{high:g}": (key > low) & (key <= high) for low, high in itertools.pairwise(edges)}
    return {name: float(loss[mask].mean()) for name, mask in inside.items() if mask.any()}
