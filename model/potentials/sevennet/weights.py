"""The trained weights of SevenNet, read from the files in the ``sevenn`` package, whose code is not needed.

The published networks are of the NequIP kind (Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024)): features of
degree l are ``multiplicities[l]`` vectors of 2l+1 components, without parity. All constants of e3nn's layers
(normalisation of linear layers, activations and tensor products) are multiplied into the weights here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SILU_NORM = 1.6791767923989418  # e3nn scales every activation: one over the root mean square of silu, as it samples it
FILES = {
    "7net-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "7net-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "7net-mf-0-pbe": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "7net-mf-0-r2scan": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
}
MODALITIES = {"7net-mf-0-pbe": "PBE", "7net-mf-0-r2scan": "R2SCAN"}
REMEDY = "SevenNet needs the package sevenn, which brings its weights: pip install 'hostguide[sevennet]'"


@dataclass(frozen=True)
class Path3:
    """One product of a tensor product: features of degree ``l1`` times harmonics of degree ``l2`` give degree ``l3``.

    Attributes:
        symbols: ((2l2+1)·(2l1+1), 2l3+1) float64, its coupling coefficients.
        weights: the columns of `LayerWeights.radial_last` that multiply it.
    """

    l1: int
    l2: int
    l3: int
    symbols: Tensor
    weights: slice


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerWeights:
    """One interaction layer, in float64.

    Attributes:
        own: per degree, (in, out) linear map of an atom's own features, for degrees that both sides have.
        before: per degree, (in, in) linear map of the features that are sent.
        before_bias: (in,) of the scalars.
        paths: of the tensor product, ordered by l1, l2, l3.
        radial: (8, 64) and (64, 64) first layers of the radial network; each is followed by a scaled silu.
        radial_last: (64, W) its last layer.
        after: per degree, (channels, out) linear map of the sums of messages; the channels are those of the paths to
            this degree, one after another.
        after_bias: (out,) of the scalars.
        scalars: number of scalars that leave the layer; the rest of the scalars are gates of the other degrees.
    """

    own: list[Tensor]
    before: list[Tensor]
    before_bias: Tensor
    paths: list[Path3]
    radial: tuple[Tensor, Tensor]
    radial_last: Tensor
    after: list[Tensor]
    after_bias: Tensor
    scalars: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Weights:
    """A whole network, in float64.

    Attributes:
        version: of the package.
        cutoff: Å.
        switch_on: Å where the cutoff function begins to fall (XPLOR), or None for a polynomial one.
        frequencies: (8,) 1/Å of the radial basis.
        place: (120,) int64 row of each atomic number in the tables per element, -1 where it is unknown.
        embedding: (elements, scalars) first features.
        layers: the interactions.
        readout: (scalars,) from the last features to the energy of an atom before ``scale`` and ``shift``.
        readout_bias: the same without features.
        scale, shift: (elements,) eV.
    """

    version: str
    cutoff: float
    switch_on: float | None
    frequencies: Tensor
    place: Tensor
    embedding: Tensor
    layers: list[LayerWeights]
    readout: Tensor
    readout_bias: float
    scale: Tensor
    shift: Tensor


def read_weights(name: str) -> Weights:
    """The weights of a potential of the catalogue.

    Raises:
        ValueError: there are no weights of this name.
        ImportError: the package ``sevenn`` is not installed.
    """
    if name not in FILES:
        raise ValueError(f"SevenNet has the weights {', '.join(FILES)}, not {name!r}")
    found = importlib.util.find_spec("sevenn")
    if found is None or found.origin is None:
        raise ImportError(REMEDY)
    path = Path(found.origin).parent / "pretrained_potentials" / FILES[name]
    if not path.is_file():
        raise ImportError(f"{path} is missing. {REMEDY}")
    checkpoint = _load(path)
    return _Reader(checkpoint["config"], checkpoint["model_state_dict"], MODALITIES.get(name)).network()


def _load(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it; besides tensors its configuration has arrays of numpy."""
    # The files were written by numpy 1, which called its function by another name.
    rebuild = (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct")  # type: ignore[attr-defined]
    kinds = [np.ndarray, np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64))]
    with torch.serialization.safe_globals([rebuild, *kinds]):
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


class _Reader:
    """Cuts the flat weights of a checkpoint into matrices."""

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor], modality: str | None) -> None:
        _check_shape(config)
        self.config, self.state = config, {key: value.double() for key, value in state.items()}
        modes = config.get("_modal_map") or {}
        if (modality is None) != (not modes) or (modality is not None and modality not in modes):
            raise ValueError(f"these weights have the modalities {list(modes)}, not {modality!r}")
        self.modes, self.mode = len(modes), modes.get(modality)
        irreps = [_multiplicities(text) for text in config["irreps_manual"]]
        self.inputs, self.outputs = irreps[:-1], irreps[1:]

    def network(self) -> Weights:
        config = self.config
        envelope = config["cutoff_function"]
        place = torch.full((120,), -1)
        for number, index in config["_type_map"].items():
            place[number] = index
        (embedding,), _ = self._linear("onehot_to_feature_x", [len(config["_type_map"])], self.inputs[0])
        last = self.outputs[-1][:1]
        hidden = [last[0] // 2]
        (to_hidden,), hidden_bias = self._linear("reduce_input_to_hidden", last, hidden, "use_modal_output_block")
        (to_energy,), _ = self._linear("reduce_hidden_to_energy", hidden, [1])
        scale, shift = (self.state[f"rescale_atomic_energy.{kind}"] for kind in ("scale", "shift"))
        return Weights(
            version=importlib.metadata.version("sevenn"),
            cutoff=float(config["cutoff"]),
            switch_on=float(envelope["cutoff_on"]) if envelope["cutoff_function_name"] == "XPLOR" else None,
            frequencies=self.state["edge_embedding.basis_function.coeffs"],
            place=place,
            embedding=embedding,
            layers=[self._layer(t) for t in range(len(self.inputs))],
            readout=(to_hidden @ to_energy)[:, 0],
            readout_bias=float((hidden_bias @ to_energy)[0]),
            scale=scale if scale.dim() == 1 else scale[self.mode],
            shift=shift if shift.dim() == 1 else shift[self.mode],
        )

    def _layer(self, t: int) -> LayerWeights:
        inputs, outputs = self.inputs[t], self.outputs[t]
        gated = [outputs[0] + sum(outputs[1:]), *outputs[1:]]
        own, _ = self._linear(f"{t}_self_connection_intro", inputs, gated)
        before, before_bias = self._linear(f"{t}_self_interaction_1", inputs, inputs, "use_modal_self_inter_intro")
        paths = list(self._paths(t))
        channels = [sum(inputs[path.l1] for path in paths if path.l3 == degree) for degree in range(len(outputs))]
        after, after_bias = self._linear(f"{t}_self_interaction_2", channels, gated, "use_modal_self_inter_outro")
        first, second, last = (self.state[f"{t}_convolution.weight_nn.layer{i}.weight"] for i in range(3))
        return LayerWeights(
            own=own,
            before=before,
            before_bias=before_bias,
            paths=paths,
            radial=(first / math.sqrt(len(first)), second * SILU_NORM / math.sqrt(len(second))),
            radial_last=last * SILU_NORM / math.sqrt(len(last)) / self.state[f"{t}_convolution.denominator"],
            after=after,
            after_bias=after_bias,
            scalars=outputs[0],
        )

    def _paths(self, t: int) -> Iterator[Path3]:
        """Products of a layer in the order of their weights."""
        start = 0
        for l1, multiplicity in enumerate(self.inputs[t]):
            for l2 in range(self.config["lmax"] + 1):
                for l3 in range(abs(l1 - l2), min(l1 + l2 + 1, len(self.outputs[t]))):
                    symbols = self._symbols(t, l1, l2, l3).transpose(0, 1).flatten(0, 1)
                    yield Path3(l1, l2, l3, symbols, slice(start, start + multiplicity))
                    start += multiplicity

    def _symbols(self, t: int, l1: int, l2: int, l3: int) -> Tensor:
        """(2l1+1, 2l2+1, 2l3+1) coupling coefficients; the stored ones have the sign that the weights go with."""
        if 0 not in (l1, l2, l3):
            stored = self.state[f"{t}_convolution.convolution._compiled_main_left_right._w3j_{l1}_{l2}_{l3}"]
            return stored * math.sqrt(2 * l3 + 1)
        shape = (2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)
        return torch.eye(max(shape), dtype=torch.float64).view(shape) / math.sqrt(shape[0] if l3 == 0 else 1)

    def _linear(self, key: str, inputs: list[int], outputs: list[int], modal: str = "") -> tuple[list[Tensor], Tensor]:
        """Matrix per degree, and what the modality adds to the scalars; ``modal`` says where the setting for it is."""
        flat, modes = self.state[f"{key}.linear.weight"], self.modes if self.config.get(modal) else 0
        shapes = [*zip(inputs, outputs, strict=False), *([(modes, outputs[0])] if modes else [])]
        parts = flat.split([rows * columns for rows, columns in shapes])
        matrices = [part.view(shape) / math.sqrt(shape[0]) for part, shape in zip(parts, shapes, strict=True)]
        if not modes:
            return matrices, matrices[0].new_zeros(outputs[0])
        joint = math.sqrt(inputs[0] + modes)  # the scalars and the modality are one sum, with one normalisation
        bias = matrices.pop()[self.mode] * math.sqrt(modes) / joint
        matrices[0] = matrices[0] * math.sqrt(inputs[0]) / joint
        return matrices, bias


def _multiplicities(irreps: str) -> list[int]:
    """``128x0e+64x1e`` as [128, 64]."""
    terms = [term.split("x") for term in irreps.split("+")]
    if [ir for _, ir in terms] != [f"{degree}e" for degree in range(len(terms))]:
        raise ValueError(f"expected even degrees from 0 on, got {irreps}")
    return [int(multiplicity) for multiplicity, _ in terms]


def _check_shape(config: dict[str, Any]) -> None:
    expected = {
        "is_parity": False,
        "_normalize_sph": True,
        "self_connection_type": "linear",
        "act_radial": "silu",
        "act_scalar": {"e": "silu", "o": "tanh"},
        "act_gate": {"e": "silu", "o": "tanh"},
        "readout_as_fcn": False,
        "use_bias_in_linear": False,
        "weight_nn_hidden_neurons": [64, 64],
    }
    wrong = {key: config.get(key) for key, value in expected.items() if config.get(key) != value}
    if wrong:
        raise ValueError(f"these SevenNet weights have another shape than the published ones: {wrong}")
