"""Training examples, crystals in which some atoms are noised, and the loss of the displacements back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pymatgen.core import Element
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.network import ScoreNetwork
from model.diffusion.noise import add_noise, draw_sigma, minimum_image_displacement, wrapped_displacement
from model.settings import Settings

if TYPE_CHECKING:
    from model.diffusion.paper_network import PaperNetwork


class Objective(Settings):
    """How crystals are noised, and the loss. The defaults are ours; `configs/train/paper.yaml` holds the papers'."""

    loss: Literal["wrapped", "published"] = "wrapped"  # see `denoising_loss`
    guest_species: float = 0.55  # share of crystals in which one of the guest elements is noised
    any_species: float = 0.15  # ... any one element
    random_quarter: float = 0.10  # ... a random quarter of the atoms; in the rest every atom is noised
    sigma_centre: float = 0.35  # Å
    sigma_width: float = 1.2  # standard deviation of log sigma
    sigma_broad: float = 0.2  # share drawn log-uniformly within the limits
    sigma_limits: tuple[float, float] = (0.005, 5.0)  # Å
    host_jitter: float = 0.02  # Å
    strain: float = 0.01  # standard deviation of the random strain components


def choose_guests(
    crystal: Crystal, objective: Objective, favoured: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """(n,) bool, the atoms of the crystal that are noised; at least one."""
    draw = rng.random()
    numbers = crystal.numbers
    if draw < objective.guest_species + objective.any_species:
        present = np.unique(numbers)
        usual = present[np.isin(present, favoured)]
        pool = usual if draw < objective.guest_species and len(usual) else present
        return numbers == rng.choice(pool)
    if draw < objective.guest_species + objective.any_species + objective.random_quarter:
        guest = np.zeros(len(numbers), dtype=bool)
        guest[rng.choice(len(numbers), size=max(1, len(numbers) // 4), replace=False)] = True
        return guest
    return np.ones(len(numbers), dtype=bool)


def strained(crystal: Crystal, size: float, rng: np.random.Generator) -> Crystal:
    """The crystal under a random symmetric strain, fractional coordinates kept."""
    strain = size * rng.standard_normal((3, 3))
    return crystal.replace(lattice=crystal.lattice @ (np.eye(3) + (strain + strain.T) / 2))


def training_example(
    crystals: Sequence[Crystal],
    objective: Objective,
    favoured: Sequence[str],
    rng: np.random.Generator,
) -> tuple[Batch, Batch, Tensor, Tensor]:
    """A clean batch, the noised batch, sigma (B,) in Å, and guest (N,) bool."""
    guests = [Element(symbol).Z for symbol in favoured]
    guest = np.concatenate([choose_guests(crystal, objective, guests, rng) for crystal in crystals])
    sigma = draw_sigma(
        len(crystals),
        rng,
        centre=objective.sigma_centre,
        width=objective.sigma_width,
        broad=objective.sigma_broad,
        limits=objective.sigma_limits,
    )
    clean = Batch.from_crystals([strained(crystal, objective.strain, rng) for crystal in crystals])
    level = torch.from_numpy(sigma).to(clean.positions)
    mask = torch.from_numpy(guest)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return clean, add_noise(clean, level, mask, generator, host_jitter=objective.host_jitter), level, mask


def denoising_loss(
    network: ScoreNetwork | PaperNetwork,
    clean: Batch,
    noised: Batch,
    sigma: Tensor,
    guest: Tensor,
    *,
    kind: Literal["wrapped", "published"] = "wrapped",
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Tensor:
    """(N_guest,) squared error of each guest's predicted displacement, dimensionless.

    ``wrapped`` is ours: the target is that of the wrapped normal distribution and the error is divided by the size of
    the network's output. ``published`` is that of the CHGGen code: the target is the nearest image of the clean
    position and the loss ½ sigma² ‖error of the score‖², that is ½ ‖error / sigma‖². ``precision`` is that of the
    network's matrix products; geometry and targets are in full precision.
    """
    with torch.autocast(sigma.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        predicted = network(noised, sigma, guest)[guest]
    owner = clean.owner[guest]
    places = noised.positions[guest], clean.positions[guest]
    if kind == "published":
        target = minimum_image_displacement(*places, clean.lattice, owner)
        scale = 2**0.5 * sigma[owner]
    else:
        target = wrapped_displacement(*places, sigma, clean.lattice, owner)
        scale = network.output_size(sigma)[owner]
    return (predicted - target).square().sum(-1) / scale.square()
