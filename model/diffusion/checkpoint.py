"""Weights on disk: safetensors for the numbers, YAML for their description. No pickles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import yaml
from pydantic import Discriminator, Tag, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.diffusion.network import NetworkConfig, ScoreNetwork
from model.diffusion.paper_config import PaperNetworkConfig
from model.files import DATA, written_whole

if TYPE_CHECKING:
    from model.diffusion.paper_network import PaperNetwork

PACKAGED_WEIGHTS = ("small", "base")  # score models that come with hostguide


def _kind(value: Any) -> str:
    return value.get("kind", "hostguide") if isinstance(value, dict) else getattr(value, "kind", "hostguide")


# Either network's settings, told apart by `kind`; without one they are ours.
AnyNetworkConfig = Annotated[
    Annotated[NetworkConfig, Tag("hostguide")] | Annotated[PaperNetworkConfig, Tag("paper")], Discriminator(_kind)
]
_NETWORK_CONFIG: TypeAdapter[NetworkConfig | PaperNetworkConfig] = TypeAdapter(AnyNetworkConfig)


def weights_file(weights: str | Path | None = None) -> Path:
    """The .safetensors file of a packaged model (`PACKAGED_WEIGHTS`; the small one by default) or of a path.

    >>> weights_file("base").name
    'base.safetensors'
    """
    name = str(weights or PACKAGED_WEIGHTS[0])
    return DATA / f"{name}.safetensors" if name in PACKAGED_WEIGHTS else Path(name)


def build_network(config: NetworkConfig | PaperNetworkConfig) -> ScoreNetwork | PaperNetwork:
    """A new network, randomly initialised, of the kind that ``config`` describes."""
    if isinstance(config, NetworkConfig):
        return ScoreNetwork(config)
    from model.diffusion.paper_network import PaperNetwork  # a second to import, for comparisons only

    return PaperNetwork(config)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a .safetensors file atomically."""
    with written_whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def yaml_text(content: dict[str, Any]) -> str:
    """YAML with the fields in their order."""
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def save_yaml(content: dict[str, Any], path: Path) -> None:
    """Write a YAML file atomically."""
    with written_whole(path) as temporary:
        temporary.write_text(yaml_text(content), encoding="utf-8")


def save_network(state: dict[str, Tensor], card: dict[str, Any], path: Path) -> None:
    """Write ``path`` (.safetensors) and its card next to it (.yaml); the card must contain ``network``."""
    _NETWORK_CONFIG.validate_python(card["network"])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(state, path)
    save_yaml(card, path.with_suffix(".yaml"))


def load_network(path: Path, *, device: str = "cpu") -> ScoreNetwork | PaperNetwork:
    """Read weights and their card; the network is in evaluation mode, without gradients.

    Raises:
        ValueError: a file is missing, or weights and card do not fit together.

    Example:
        >>> network = load_network(weights_file("small"))
        >>> network.config.cutoff
        5.0
    """
    card = path.with_suffix(".yaml")
    _must_exist(path)
    _must_exist(card)
    try:
        network = build_network(_NETWORK_CONFIG.validate_python(yaml.safe_load(card.read_text())["network"]))
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"score model: {card} is not the card of a score model: {error}") from error
    try:
        network.load_state_dict(load_file(path, device="cpu"))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"score model: {path} does not fit the network described in {card}: {error}") from error
    return network.to(device).requires_grad_(False).eval()


def _must_exist(file: Path) -> None:
    if not file.exists():
        raise ValueError(
            f"score model: {file} does not exist; use small, base, or a .safetensors of `hostguide train`, whose .yaml"
            " must lie beside it"
        )


def weights_version(path: Path) -> str:
    """Name and content hash of a weights file, for the results."""
    _must_exist(path)
    return f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def default_device() -> str:
    """``cuda`` when there is one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
