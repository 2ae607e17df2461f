"""Noise levels and targets against the score of the wrapped normal distribution."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.noise import (
    add_noise,
    draw_sigma,
    exponential_levels,
    minimum_image_displacement,
    power_levels,
    wrapped_displacement,
)

IMAGES = torch.tensor(list(itertools.product(range(-7, 8), repeat=3)), dtype=torch.float64)


@pytest.fixture
def pair() -> tuple[Batch, Batch]:
    """(clean, noised) of a skewed and a cubic crystal, 2 and 3 atoms; the noised atoms are anywhere."""
    rng = np.random.default_rng(5)
    cells = ([[4.0, 0, 0], [1.8, 3.9, 0], [-1.5, 1.0, 4.4]], 4.2 * np.eye(3))
    clean = [Crystal(cell, rng.random((n, 3)), [3] * n) for cell, n in zip(cells, (2, 3), strict=True)]
    noised = [crystal.replace(fractional=rng.uniform(-3, 3, (len(crystal), 3))) for crystal in clean]
    return Batch.from_crystals(clean, dtype=torch.float64), Batch.from_crystals(noised, dtype=torch.float64)


def displacement(pair: tuple[Batch, Batch], sigma: float) -> Tensor:
    clean, noised = pair
    level = torch.full((len(clean),), sigma, dtype=torch.float64)
    return wrapped_displacement(noised.positions, clean.positions, level, clean.lattice, clean.owner)


def nearest_image(pair: tuple[Batch, Batch]) -> Tensor:
    """Shortest of the vectors to all images, from the wrapped difference so that 7 cells are enough."""
    clean, noised = pair
    fractional = clean.fractional() - noised.fractional()
    images = (fractional - fractional.floor())[:, None] + IMAGES
    vectors = torch.einsum("nki,nij->nkj", images, clean.lattice[clean.owner])
    shortest = vectors.norm(dim=-1).argmin(dim=1)
    return vectors[torch.arange(len(vectors)), shortest]


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.8, 1.5])
def test_target_is_the_score_of_the_wrapped_normal(pair: tuple[Batch, Batch], sigma: float) -> None:
    clean, noised = pair
    position = noised.positions.clone().requires_grad_()
    shift = torch.einsum("ki,nij->nkj", IMAGES, clean.lattice[clean.owner])
    square = (position[:, None] - clean.positions[:, None] - shift).square().sum(-1)
    log_density = torch.logsumexp(-square / (2 * sigma**2), dim=1)
    score = torch.autograd.grad(log_density.sum(), position)[0]
    torch.testing.assert_close(displacement(pair, sigma), sigma**2 * score, rtol=1e-6, atol=1e-6)


def test_target_at_small_noise_is_the_nearest_image(pair: tuple[Batch, Batch]) -> None:
    torch.testing.assert_close(displacement(pair, 1e-3), nearest_image(pair))


def test_target_vanishes_when_noise_fills_the_cell(pair: tuple[Batch, Batch]) -> None:
    sizes = [displacement(pair, sigma).norm(dim=-1).max().item() for sigma in (0.5, 1.0, 1.5, 5.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.01 * sizes[0]


def test_target_does_not_depend_on_whole_cells(pair: tuple[Batch, Batch]) -> None:
    clean, noised = pair
    moved = noised.replace(positions=noised.positions + 3 * clean.lattice[clean.owner, 0])
    torch.testing.assert_close(displacement((clean, noised), 0.7), displacement((clean, moved), 0.7))


def test_minimum_image_is_the_nearest_image(pair: tuple[Batch, Batch]) -> None:
    clean, noised = pair
    nearest = minimum_image_displacement(noised.positions, clean.positions, clean.lattice, clean.owner)
    torch.testing.assert_close(nearest, nearest_image(pair))


@pytest.mark.parametrize("cell", [[[4, 0, 0], [15, 2, 0], [0, 0, 5]], [[2.8, 0, 0], [-13, 2.5, 0], [20, 9, 3]]])
def test_the_minimum_image_is_the_nearest_in_skewed_cells(cell: list[list[float]]) -> None:
    """In these, the nearest image lies up to 7 cells away; beside one of another size, whose cell is not skewed."""
    rng = np.random.default_rng(3)
    skewed = Crystal(cell, rng.random((20, 3)), [3] * 20)
    cube = Crystal(5 * np.eye(3), rng.random((3, 3)), [3] * 3)
    clean = Batch.from_crystals([skewed, cube], dtype=torch.float64)
    noised = clean.replace(positions=clean.positions + torch.from_numpy(rng.normal(0, 2.0, (23, 3))))
    wide = torch.tensor(list(itertools.product(range(-14, 15), repeat=3)), dtype=torch.float64)
    steps = clean.fractional() - noised.fractional()
    images = torch.einsum("nki,nij->nkj", (steps - steps.round())[:, None] + wide, clean.lattice[clean.owner])
    found = minimum_image_displacement(noised.positions, clean.positions, clean.lattice, clean.owner)
    torch.testing.assert_close(found.norm(dim=-1), images.norm(dim=-1).amin(1))


def test_exponential_levels_have_a_constant_ratio() -> None:
    levels = exponential_levels(0.001, 10.0, 200)
    assert len(levels) == 200
    assert levels[[0, -1]] == pytest.approx([0.001, 10.0])
    np.testing.assert_allclose(levels[1:] / levels[:-1], 1e4 ** (1 / 199))


def test_power_levels_fall_evenly_in_the_root() -> None:
    levels = power_levels(0.01, 5.0, 16, rho=5.0)
    assert levels[[0, -1]] == pytest.approx([5.0, 0.01])
    np.testing.assert_allclose(np.diff(levels**0.2), np.diff(levels**0.2)[0])
    np.testing.assert_allclose(power_levels(1.0, 3.0, 3, rho=1.0), [3.0, 2.0, 1.0])


def test_drawn_levels_follow_their_distribution() -> None:
    rng = np.random.default_rng(0)
    focused = draw_sigma(20_000, rng, centre=0.35, width=0.5, broad=0.0, limits=(0.001, 10.0))
    assert np.log(focused).mean() == pytest.approx(np.log(0.35), abs=0.02)
    assert np.log(focused).std() == pytest.approx(0.5, abs=0.02)
    uniform = draw_sigma(20_000, rng, centre=0.35, width=0.5, broad=1.0, limits=(0.001, 10.0))
    share, _ = np.histogram(np.log10(uniform), bins=[-3, -2, -1, 0, 1])
    np.testing.assert_allclose(share / 20_000, 0.25, atol=0.02)


def test_drawn_levels_stay_within_the_limits() -> None:
    drawn = draw_sigma(1000, np.random.default_rng(0), centre=0.3, width=3.0, broad=0.5, limits=(0.1, 1.0))
    assert (drawn.min(), drawn.max()) == (0.1, 1.0)


def test_added_noise_has_the_size_asked_for() -> None:
    crystals = [Crystal(5 * np.eye(3), np.zeros((n, 3)), [3] * n) for n in (4000, 2000)]
    batch = Batch.from_crystals(crystals, dtype=torch.float64)
    guest = torch.arange(6000) % 2 == 0
    sigma = [0.2, 1.5]
    level, generator = torch.tensor(sigma, dtype=torch.float64), torch.Generator().manual_seed(0)
    moved = add_noise(batch, level, guest, generator, host_jitter=0.01).positions
    for crystal, size in enumerate(sigma):
        assert moved[guest & (batch.owner == crystal)].std().item() == pytest.approx(size, rel=0.05)
    assert moved[~guest].std().item() == pytest.approx(0.01, rel=0.05)


def test_noise_is_decided_by_the_generator(pair: tuple[Batch, Batch]) -> None:
    batch, guest, sigma = pair[0], torch.ones(5, dtype=torch.bool), torch.ones(2, dtype=torch.float64)
    one, same, other = (
        add_noise(batch, sigma, guest, torch.Generator().manual_seed(seed), host_jitter=0.0).positions
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
