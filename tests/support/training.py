"""Training on a small set of real crystals: small networks, settings, and the crystals."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Lattice, Structure

from model.crystals.crystal import Crystal
from model.diffusion.dataset import DataConfig
from model.diffusion.network import NetworkConfig
from model.diffusion.paper_config import PaperNetworkConfig
from model.diffusion.train import TrainConfig, Trainer

OURS = NetworkConfig(multiplicities=(8, 4), layers=2, cutoff=4.0, radial=4, radial_hidden=8, node_hidden=16)
PAPER = PaperNetworkConfig(
    layers=2,
    cutoff=4.0,
    node="8x0e",
    auxiliary="4x0e",
    hidden="8x0e + 4x1e",
    edge="2x0e + 2x1e + 2x2e",
    bessel=6,
    radial_hidden=16,
)
ROCK_SALT = {"LiF": 2.85, "NaCl": 3.99, "KBr": 4.67, "MgO": 2.98, "CaO": 3.40, "CaS": 4.02, "NaF": 3.28, "KCl": 4.45}
FLUORITE = {"CaF2": 5.46, "SrF2": 5.80, "BaF2": 6.20, "Li2O": 4.62, "Na2O": 5.55}  # Å, conventional cubic


@functools.cache
def fluorite() -> Crystal:
    return Crystal.from_pymatgen(fluorite_of("CaF2", 5.46))


def rock_salt(name: str, a: float) -> Structure:
    species = list(Composition(name))
    return Structure(Lattice.from_parameters(a, a, a, 60, 60, 60), species, [[0, 0, 0], [0.5, 0.5, 0.5]])


def fluorite_of(name: str, a: float) -> Structure:
    four, eight = sorted(Composition(name), key=Composition(name).__getitem__)
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [four, eight], [[0, 0, 0], [0.25, 0.25, 0.25]])


def row(name: str, structure: Structure) -> dict[str, Any]:
    return {
        "split": "val" if name in ("NaF", "SrF2") else "train",
        "n_atoms": len(structure),
        "e_above_hull": 0.0,
        "cell": np.array(structure.lattice.parameters),
        "atomic_numbers": np.array(structure.atomic_numbers),
        "frac_coords": structure.frac_coords.ravel(),
    }


def settings(dataset: Path, **changes: Any) -> TrainConfig:
    defaults = {
        "data": DataConfig(path=str(dataset)),
        "network": OURS,
        "steps": 60,
        "atoms_per_batch": 24,
        "learning_rate": 1e-2,
        "warmup": 5,
        "average": 0.9,
        "validate_every": 1000,
        "save_every": 10,
        "validation_batches": 8,
    }
    return TrainConfig(**{**defaults, **changes})


def train(config: TrainConfig, folder: Path) -> Trainer:
    trainer = Trainer(config, folder)
    trainer.run(report=lambda record: None)
    return trainer
