"""Samplers against closed forms: the exact score of a periodic Gaussian, with and without a host."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.noise import power_levels
from model.diffusion.sampler import (
    AncestralSettings,
    HeunSettings,
    PredictorCorrectorSettings,
    PublishedSettings,
    Template,
    ancestral_step,
    jump_schedule,
    sample,
)
from model.symmetry.space_group import space_group

EDGE = 5.0  # Å, cubic cell
HOST_MEAN, HOST_SPREAD = 1.0, 0.5  # Å
OFFSET, GUEST_SPREAD = 2.0, 0.3  # Å; a guest sits at its host + OFFSET
HOST_AT = 1.4  # Å, where the tests put the host
COUNT = 200

HEUN = HeunSettings(steps=24, sigma_min=0.01, sigma_max=5.0, churn=0.2)
ANCESTRAL = AncestralSettings(steps=60, temperature=1.0)
PAPER = PredictorCorrectorSettings(steps=60, correctors=3, snr=0.25, resamples=3, jump=5, sigma_min=0.02, sigma_max=3.0)


def exact_displacement(batch: Batch, sigma: Tensor, guest: Tensor) -> Tensor:
    """sigma² ∇ log p of (host, guest) pairs on a torus, all three axes independent.

    host ~ N(HOST_MEAN, HOST_SPREAD²), guest ~ N(host + OFFSET, GUEST_SPREAD²); atoms in ``guest`` carry noise.
    """
    pairs = batch.positions.double().view(-1, 2, 3)
    variance = sigma.double()[:, None] ** 2
    images = EDGE * torch.arange(-2, 3, dtype=torch.float64)
    if bool(guest.all()):
        x = pairs[:, 0, :, None, None] + images[:, None] - HOST_MEAN
        y = pairs[:, 1, :, None, None] + images - HOST_MEAN - OFFSET
        a, c = HOST_SPREAD**2 + variance, HOST_SPREAD**2 + GUEST_SPREAD**2 + variance
        b = HOST_SPREAD**2
        a, c = a[:, :, None, None], c[:, :, None, None]
        determinant = a * c - b * b
        weight = torch.softmax((-(c * x * x - 2 * b * x * y + a * y * y) / (2 * determinant)).flatten(2), -1).view(
            *x.shape[:2], 5, 5
        )
        host = (weight * -(c * x - b * y) / determinant).sum((2, 3))
        other = (weight * -(a * y - b * x) / determinant).sum((2, 3))
    else:
        y = pairs[:, 1, :, None] - pairs[:, 0, :, None] - OFFSET + images
        total = (GUEST_SPREAD**2 + variance)[:, :, None]
        weight = torch.softmax(-(y * y) / (2 * total), -1)
        other = (weight * -y / total).sum(-1)
        host = torch.zeros_like(other)
    score = torch.stack([host, other], dim=1)
    return (variance[:, :, None] * score).reshape(-1, 3).to(batch.positions)


def templates(guest: tuple[bool, bool]) -> list[Template]:
    crystal = Crystal(EDGE * np.eye(3), np.full((2, 3), HOST_AT / EDGE), [14, 3])
    return [Template(crystal=crystal, guest=np.array(guest), seed=seed) for seed in range(COUNT)]


def around(values: np.ndarray, centre: float) -> np.ndarray:
    """Values on the circle of length EDGE, unwrapped about ``centre``."""
    return (values - centre + EDGE / 2) % EDGE - EDGE / 2


def assert_normal(values: np.ndarray, centre: float, spread: float) -> None:
    """Mean and variance within 4 standard errors of their estimates."""
    offsets = around(values, centre).ravel()
    assert abs(offsets.mean()) < 4 * spread / np.sqrt(offsets.size)
    assert abs(offsets.var() / spread**2 - 1) < 4 * np.sqrt(2 / offsets.size)


@pytest.mark.parametrize("settings", [HEUN, ANCESTRAL, PAPER], ids=lambda s: s.kind)
def test_unconditional_samples_follow_the_gaussian(settings):
    crystals = sample(exact_displacement, templates((True, True)), settings, dtype=torch.float64).crystals
    cartesian = np.stack([crystal.cartesian for crystal in crystals])
    assert_normal(cartesian[:, 0], HOST_MEAN, HOST_SPREAD)
    assert_normal(cartesian[:, 1] - cartesian[:, 0], OFFSET, GUEST_SPREAD)


@pytest.mark.parametrize("settings", [HEUN, ANCESTRAL, PAPER], ids=lambda s: s.kind)
def test_inpainted_guests_follow_the_exact_conditional_and_hosts_stay(settings):
    crystals = sample(exact_displacement, templates((False, True)), settings, dtype=torch.float64).crystals
    cartesian = np.stack([crystal.cartesian for crystal in crystals])
    np.testing.assert_allclose(cartesian[:, 0], HOST_AT, atol=1e-12)
    assert_normal(cartesian[:, 1], HOST_AT + OFFSET, GUEST_SPREAD)


@pytest.mark.parametrize("settings", [HEUN, ANCESTRAL, PAPER], ids=lambda s: s.kind)
def test_guests_start_where_they_are_if_told(settings):
    """Without a score a guest stays within the noise's reach of its start: at most a few times the first level."""
    start = Crystal(100 * np.eye(3), [[0.1, 0.1, 0.1], [0.6, 0.6, 0.6]], [14, 3])
    guest = np.array([False, True])
    templates = [Template(crystal=start, guest=guest, seed=seed, start_here=seed % 2 == 0) for seed in range(20)]
    made = sample(lambda batch, sigma, guest: torch.zeros_like(batch.positions), templates, settings).crystals
    moved = np.array([np.abs((crystal.fractional[1] - 0.6 + 0.5) % 1 - 0.5).max() for crystal in made])
    assert (moved[::2] < 0.25).all()
    assert (moved[1::2] > 0.25).any()
    assert all((crystal.fractional[0] == 0.1).all() for crystal in made)


def test_the_published_variant_without_its_two_habits_is_the_papers_sampler():
    shape = {"steps": 20, "correctors": 0, "resamples": 1, "sigma_min": 0.02, "sigma_max": 3.0}
    some = templates((False, True))[:5]
    one, other = (
        sample(exact_displacement, some, settings, dtype=torch.float64).crystals
        for settings in (PredictorCorrectorSettings(**shape), PublishedSettings(**shape))
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.fractional, b.fractional)


def test_the_published_corrector_spreads_samples_too_widely_and_stays_finite():
    """Its step is huge for an atom that sits well, so that it cannot sample the Gaussian which (a) samples."""
    settings = PublishedSettings(**PAPER.model_dump(exclude={"kind", "norm"}))
    made = sample(exact_displacement, templates((False, True)), settings, dtype=torch.float64)
    offsets = around(np.stack([crystal.cartesian[1] for crystal in made.crystals]), HOST_AT + OFFSET)
    assert np.isfinite(offsets).all() and offsets.std() > 1.5 * GUEST_SPREAD
    paper = sample(exact_displacement, templates((False, True))[:1], PAPER, dtype=torch.float64)
    assert made.evaluations == paper.evaluations


@pytest.mark.parametrize("temperature", [0.2, 0.5])
def test_low_temperature_narrows_a_gaussian_by_the_closed_form(temperature):
    settings = AncestralSettings(steps=200, temperature=temperature, sigma_max=5.0)
    crystals = sample(exact_displacement, templates((False, True)), settings, dtype=torch.float64).crystals
    narrowed = GUEST_SPREAD * (temperature / (2 - temperature)) ** 0.5
    assert_normal(np.stack([crystal.cartesian[1] for crystal in crystals]), HOST_AT + OFFSET, narrowed)


TEMPERATURES = [1e-3, 0.1, 0.25, 0.5, 1.0, 1.5, 1.9]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_around_a_site_the_variance_is_exact_at_every_level(temperature):
    """Around one known place D = −e, so that errors obey e ← (1 − f) e + spread z: variance T/(2 − T) σ² throughout."""
    share_of_variance = temperature / (2 - temperature)
    for high, low in pairwise([*power_levels(0.01, 3.0, 16, rho=3.0), 0.0]):
        share, spread = ancestral_step(high, low, temperature=temperature)
        assert 0 < share <= 1
        variance = (1 - share) ** 2 * share_of_variance * high**2 + spread**2
        assert variance == pytest.approx(share_of_variance * low**2, rel=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_one_ancestral_step_is_as_good_as_two(temperature):
    """From σ = 2 Å by 0.7 to 0.3 Å: what is left of an error, and the noise that is added, are those of one step."""
    (first, early), (second, late), (share, spread) = (
        ancestral_step(high, low, temperature=temperature) for high, low in [(2.0, 0.7), (0.7, 0.3), (2.0, 0.3)]
    )
    assert (1 - first) * (1 - second) == pytest.approx(1 - share, rel=1e-12)
    assert (1 - second) ** 2 * early**2 + late**2 == pytest.approx(spread**2, rel=1e-12)


def test_at_temperature_one_the_ancestral_step_is_the_papers():
    for high, low in pairwise([*power_levels(0.01, 3.0, 39, rho=3.0), 0.0]):
        rest = 1 - (low / high) ** 2
        assert ancestral_step(high, low, temperature=1.0) == (rest, low * rest**0.5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("steps", [1, 4, 39])
def test_a_known_place_is_hit_at_every_temperature(temperature, steps):
    place = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def denoiser(batch: Batch, sigma: Tensor, guest: Tensor) -> Tensor:
        away = (place - batch.positions) / EDGE
        return EDGE * (away - away.round())

    settings = AncestralSettings(steps=steps, temperature=temperature)
    made = sample(denoiser, templates((False, True))[:5], settings, dtype=torch.float64).crystals
    for crystal in made:
        np.testing.assert_allclose(around(crystal.cartesian[1], place.numpy()), 0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, -0.5, 2.0, 5.0])
def test_temperatures_without_a_limiting_distribution_are_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature\n.*(greater than 0|less than 2).*input_value={temperature}"):
        AncestralSettings(temperature=temperature)


def test_one_jump_schedule_by_hand():
    moves = list(jump_schedule(5, jump=2, resamples=2))
    assert moves == [
        (5, 4),
        (4, 3),
        (3, 4),
        (4, 5),
        (5, 4),
        (4, 3),
        (3, 2),
        (2, 1),
        (1, 2),
        (2, 3),
        (3, 2),
        (2, 1),
        (1, 0),
    ]


def test_the_papers_schedule_has_about_579_backward_steps():
    moves = list(jump_schedule(200, jump=10, resamples=3))
    assert sum(low < high for high, low in moves) == 580
    assert Counter(high - low for high, low in moves) == {1: 580, -1: 380}
    assert moves[0] == (200, 199) and moves[-1] == (1, 0)


def test_without_resampling_the_schedule_goes_straight_down():
    assert list(jump_schedule(4, jump=1, resamples=1)) == [(4, 3), (3, 2), (2, 1), (1, 0)]


def test_evaluations_are_counted():
    some = templates((False, True))[:2]
    assert sample(exact_displacement, some, HEUN).evaluations == 2 * HEUN.steps - 1
    assert sample(exact_displacement, some, ANCESTRAL).evaluations == ANCESTRAL.steps
    moves = list(jump_schedule(PAPER.steps, jump=PAPER.jump, resamples=PAPER.resamples))
    backward = sum(low < high for high, low in moves)
    assert sample(exact_displacement, some, PAPER).evaluations == backward * (1 + PAPER.correctors) - PAPER.correctors


@pytest.mark.parametrize("settings", [HEUN, ANCESTRAL, PAPER], ids=lambda s: s.kind)
def test_a_crystal_does_not_depend_on_what_shares_its_batch(settings):
    many = templates((False, True))[:6]
    together = sample(exact_displacement, many, settings, dtype=torch.float64).crystals
    alone = sample(exact_displacement, many[3:4], settings, dtype=torch.float64).crystals[0]
    np.testing.assert_allclose(alone.fractional, together[3].fractional, atol=1e-9)


def test_ideal_denoiser_recovers_rock_salt_around_its_host():
    """With the displacement to the right site as denoiser, guests end on it and the space group comes back."""
    salt = Crystal(
        5.64 * np.eye(3),
        [
            [0, 0, 0],
            [0.5, 0.5, 0],
            [0.5, 0, 0.5],
            [0, 0.5, 0.5],
            [0.5, 0, 0],
            [0, 0.5, 0],
            [0, 0, 0.5],
            [0.5, 0.5, 0.5],
        ],
        [17] * 4 + [11] * 4,
    )
    target = Batch.from_crystals([salt])

    def denoiser(batch: Batch, sigma: Tensor, guest: Tensor) -> Tensor:
        difference = (target.positions - batch.positions) / 5.64
        return 5.64 * (difference - difference.round())

    made = sample(denoiser, [Template(crystal=salt, guest=salt.numbers == 11, seed=1)], HEUN).crystals[0]
    assert space_group(made).number == 225
    assert made.formula == "NaCl"


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"sigma_min \(3.0 Å\) must be below sigma_max \(1.0 Å\)"):
        PredictorCorrectorSettings(sigma_min=3.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="resample"):
        PredictorCorrectorSettings(resample=2)
