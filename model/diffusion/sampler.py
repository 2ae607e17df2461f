"""Samplers: plain functions from templates and noise levels to crystals.

A template is a crystal in which the positions of some atoms (the guests) are to be found. In unconditional generation
every atom is a guest. A denoiser is any function ``(batch, sigma, guest) -> displacement`` with

    batch: noised positions, N atoms in B crystals;
    sigma: (B,) noise level in Å of the atoms in ``guest``;
    guest: (N,) bool, atoms that carry noise;
    displacement: (N, 3) in Å, sigma² times the score.

`ScoreNetwork` is one; so is the exact score of a Gaussian in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.noise import exponential_levels, power_levels
from model.settings import Settings
from model.symmetry.projector import Projector

Denoiser = Callable[[Batch, Tensor, Tensor], Tensor]


def _sigmas_ordered(settings: Any) -> Any:
    if settings.sigma_min >= settings.sigma_max:
        raise ValueError(f"sigma_min ({settings.sigma_min} Å) must be below sigma_max ({settings.sigma_max} Å)")
    return settings


class _LangevinSettings(Settings):
    """What the papers' sampler and that of their code have in common."""

    steps: int = Field(200, ge=2)  # T, noise levels
    correctors: int = Field(5, ge=0)  # M, Langevin steps per level
    snr: float = Field(0.4, gt=0)  # δ, signal-to-noise ratio of a Langevin step
    resamples: int = Field(3, ge=1)  # r, passes through each stretch of noise levels (inpainting only)
    jump: int = Field(10, ge=1)  # j, length of a stretch in levels (inpainting only)
    sigma_min: float = Field(0.001, gt=0)  # Å
    sigma_max: float = Field(10.0, gt=0)  # Å

    _ordered = model_validator(mode="after")(_sigmas_ordered)

    def evaluations(self, *, inpainting: bool) -> int:
        """Calls of the score model per batch; resampling is for inpainting only."""
        moves = jump_schedule(self.steps, jump=self.jump, resamples=self.resamples if inpainting else 1)
        return sum(1 + (self.correctors if low > 0 else 0) for high, low in moves if low < high)


class PredictorCorrectorSettings(_LangevinSettings):
    """The papers' sampler: reverse VE-SDE with Langevin corrector; with hosts, RePaint inpainting.

    The defaults are the papers' values (CHGGen, Methods; ICML 2024, appendix C and listing 1).
    """

    kind: Literal["predictor-corrector"] = "predictor-corrector"
    norm: Literal["expected", "measured"] = "expected"  # ‖g‖ in the size of a Langevin step, see `_step_size`


class PublishedSettings(_LangevinSettings):
    """The same sampler as in the authors' public code, see `published`; for `hostguide benchmark reconstruct` only."""

    kind: Literal["published"] = "published"


class HeunSettings(Settings):
    """Few-step second-order sampler with churn (Karras 2022, algorithm 2); hosts stay exactly where they are."""

    kind: Literal["heun"] = "heun"
    steps: int = Field(16, ge=1)
    sigma_min: float = Field(0.01, gt=0)  # Å
    sigma_max: float = Field(3.0, gt=0)  # Å
    rho: float = Field(3.0, gt=0)  # curvature of the schedule
    churn: float = Field(0.3, ge=0)  # relative rise of sigma before a step
    churn_between: tuple[float, float] = (0.1, 3.0)  # Å, where churn acts

    _ordered = model_validator(mode="after")(_sigmas_ordered)

    def evaluations(self, *, inpainting: bool) -> int:
        """Calls of the score model per batch: two per step, one for the last."""
        return 2 * self.steps - 1


class AncestralSettings(Settings):
    """Few-step ancestral sampler at low temperature; hosts stay exactly where they are. One evaluation per step.

    The score is divided by the temperature T. With T = 1 this samples the learnt distribution; a lower T gives fewer
    rare arrangements and more of the likely ones. A Gaussian is sampled with T/(2 − T) of its variance, which has no
    bound from T = 2.
    """

    kind: Literal["ancestral"] = "ancestral"
    steps: int = Field(39, ge=1)
    temperature: float = Field(0.1, gt=0, lt=2)  # from 2 the spread has no bound
    sigma_min: float = Field(0.01, gt=0)  # Å
    sigma_max: float = Field(3.0, gt=0)  # Å
    rho: float = Field(3.0, gt=0)  # curvature of the schedule

    _ordered = model_validator(mode="after")(_sigmas_ordered)

    def evaluations(self, *, inpainting: bool) -> int:
        """Calls of the score model per batch."""
        return self.steps


SamplerSettings = PredictorCorrectorSettings | PublishedSettings | HeunSettings | AncestralSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class Template:
    """A crystal to be generated.

    Attributes:
        crystal: cell and atoms; the guests' positions are placeholders unless ``start_here``.
        guest: (n,) bool, atoms to be placed.
        seed: of all random numbers for this crystal.
        start_here: the guests start from their positions in ``crystal``; otherwise anywhere in the cell.
        projector: keeps the space group that hosts and guests have at the start, see `wyckoff_placement`.
        bravais: Bravais type of the cell if `model.crystals.lattice.sample_lattice` made it.

    Raises:
        ValueError: a projector without ``start_here``.
    """

    crystal: Crystal
    guest: np.ndarray
    seed: int
    start_here: bool = False
    projector: Projector | None = None
    bravais: str | None = None

    def __post_init__(self) -> None:
        if self.projector is not None and not self.start_here:
            raise ValueError(
                "a template with a projector needs start_here and positions with its symmetry: make it with "
                "model.generation.wyckoff_placement.place_guests"
            )


@dataclass(frozen=True, eq=False)
class Samples:
    """Crystals in the order of their templates, and the number of calls of the denoiser for all of them."""

    crystals: list[Crystal]
    evaluations: int


class Noise:
    """Random numbers; each crystal has its own stream, so that they do not depend on the rest of the batch.

    Normal ones are projected to be symmetric where a template has a projector.
    """

    def __init__(self, templates: Sequence[Template], batch: Batch) -> None:
        self.sizes = batch.counts.tolist()
        self.like = batch.positions
        self.projectors = [template.projector and template.projector.to(batch.positions) for template in templates]
        self.generators = [torch.Generator().manual_seed(template.seed) for template in templates]

    def normal(self) -> Tensor:
        """(N, 3) standard normal, projected."""
        return self.project(self._draw(torch.randn))

    def uniform(self) -> Tensor:
        """(N, 3) uniform in [0, 1)."""
        return self._draw(torch.rand)

    def project(self, vectors: Tensor) -> Tensor:
        """(N, 3) vectors averaged over the operations of each crystal that has some."""
        if not any(self.projectors):
            return vectors
        parts = zip(vectors.split(self.sizes), self.projectors, strict=True)
        return torch.cat([projector.atoms(part) if projector else part for part, projector in parts])

    def _draw(self, function: Callable[..., Tensor]) -> Tensor:
        parts = [
            function(n, 3, generator=g, dtype=torch.float64) for n, g in zip(self.sizes, self.generators, strict=True)
        ]
        return torch.cat(parts).to(self.like)


class Counter:
    """A denoiser that counts its calls, and whose answers are symmetric where a template has a projector."""

    def __init__(self, denoiser: Denoiser, noise: Noise) -> None:
        self.denoiser, self.noise, self.calls = denoiser, noise, 0

    def __call__(self, batch: Batch, sigma: Tensor, guest: Tensor) -> Tensor:
        """Call the denoiser."""
        self.calls += 1
        return self.noise.project(self.denoiser(batch, sigma, guest))


def sample(
    denoiser: Denoiser,
    templates: Sequence[Template],
    settings: SamplerSettings,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Samples:
    """Place the guests of all templates with the sampler that ``settings`` describes, in one batch.

    Args:
        denoiser: a score network, or any function of its kind.
        templates: of any sizes, with host atoms or without.
        settings: of one of the samplers.
        device, dtype: of the batch; the denoiser must be on the same device.

    Returns:
        crystals with the cells and hosts of their templates to the last bit. A crystal depends on its own seed, not on
        the others in the batch, up to rounding.

    Example:
        >>> from model.diffusion.checkpoint import load_network, weights_file
        >>> cell = Crystal(np.eye(3) * 4.0, np.zeros((2, 3)), [11, 17])
        >>> template = Template(crystal=cell, guest=np.array([False, True]), seed=0)
        >>> samples = sample(load_network(weights_file("small")), [template], AncestralSettings(steps=4))
        >>> samples.crystals[0].symbols, samples.evaluations
        (['Na', 'Cl'], 4)
    """
    function = _SAMPLERS[settings.kind]
    batch = Batch.from_crystals([template.crystal for template in templates], device=device, dtype=dtype)
    guest = torch.from_numpy(np.concatenate([template.guest for template in templates])).to(device)
    noise = Noise(templates, batch)
    counter = Counter(denoiser, noise)
    anywhere = guest & ~torch.tensor([template.start_here for template in templates], device=device)[batch.owner]
    with torch.no_grad():
        final = function(counter, _scattered(batch, anywhere, noise), guest, settings, noise)
    return Samples(
        [_exact(made, template) for made, template in zip(final.to_crystals(), templates, strict=True)], counter.calls
    )


def _exact(made: Crystal, template: Template) -> Crystal:
    """The crystal with the template's cell, hosts and symmetry in double precision."""
    fractional = made.fractional
    if template.projector is not None:
        way = torch.from_numpy((fractional - template.crystal.fractional) @ template.crystal.lattice)
        kept = template.projector.atoms(way).numpy() @ np.linalg.inv(template.crystal.lattice)
        fractional = template.crystal.fractional + kept
    fractional = np.where(template.guest[:, None], fractional - np.floor(fractional), template.crystal.fractional)
    return template.crystal.replace(fractional=fractional)


def _scattered(batch: Batch, where: Tensor, noise: Noise) -> Batch:
    """Atoms anywhere in the cell, uniformly, as the papers' normal fractional coordinates are once wrapped."""
    anywhere = torch.einsum("ni,nij->nj", noise.uniform(), batch.lattice[batch.owner])
    return batch.replace(positions=torch.where(where[:, None], anywhere, batch.positions))


def _move(batch: Batch, step: Tensor, where: Tensor) -> Batch:
    return batch.replace(positions=batch.positions + torch.where(where[:, None], step, torch.zeros_like(step)))


# --- ours -------------------------------------------------------------------------------------------------------


def heun(denoiser: Denoiser, batch: Batch, guest: Tensor, settings: HeunSettings, noise: Noise) -> Batch:
    """Integrate ``dx/dsigma = -displacement/sigma`` from sigma_max to zero for guests; hosts are clean throughout."""
    levels = [*power_levels(settings.sigma_min, settings.sigma_max, settings.steps, rho=settings.rho), 0.0]
    low, high = settings.churn_between
    for sigma, lower in pairwise(levels):
        raised = sigma * (1 + settings.churn) if low <= sigma <= high else sigma
        if raised > sigma:
            batch = _move(batch, (raised**2 - sigma**2) ** 0.5 * noise.normal(), guest)
        slope = _slope(denoiser, batch, raised, guest)
        moved = _move(batch, (lower - raised) * slope, guest)
        if lower > 0:
            slope = (slope + _slope(denoiser, moved, lower, guest)) / 2
            moved = _move(batch, (lower - raised) * slope, guest)
        batch = moved
    return batch


def ancestral(denoiser: Denoiser, batch: Batch, guest: Tensor, settings: AncestralSettings, noise: Noise) -> Batch:
    """Step down the levels as `predictor_corrector` does, guests only, with the score divided by the temperature.

    With temperature one this samples the learnt distribution of the guests given their host.
    """
    levels = [*power_levels(settings.sigma_min, settings.sigma_max, settings.steps, rho=settings.rho), 0.0]
    for high, low in pairwise(levels):
        batch = _predict(denoiser, batch, guest, noise, high=high, low=low, temperature=settings.temperature)
    return batch


def _slope(denoiser: Denoiser, batch: Batch, sigma: float, guest: Tensor) -> Tensor:
    return -denoiser(batch, _level(batch, sigma), guest) / sigma


def _level(batch: Batch, sigma: float) -> Tensor:
    return torch.full_like(batch.lattice[:, 0, 0], sigma)


# --- the papers' ------------------------------------------------------------------------------------------------


def predictor_corrector(
    denoiser: Denoiser, batch: Batch, guest: Tensor, settings: PredictorCorrectorSettings, noise: Noise
) -> Batch:
    """Reverse diffusion of every atom; each step puts the noised hosts back (CHGGen, eqs. 4, 7, 8).

    Going back up a level adds ``sqrt(σ²_t − σ²_{t−1})`` of noise, the forward step from t−1 to t; the index printed
    in the paper is one lower. The corrector's step size uses the root mean square over the atoms of a crystal.
    """

    def renoised(low: float, high: float) -> float:
        return (high**2 - low**2) ** 0.5

    def step_size(score: Tensor, batch: Batch, sigma: float) -> Tensor:
        return _step_size(score, batch, sigma, settings)[batch.owner]

    return _resampled(denoiser, batch, guest, settings, noise, renoised=renoised, step_size=step_size)


def published(denoiser: Denoiser, batch: Batch, guest: Tensor, settings: PublishedSettings, noise: Noise) -> Batch:
    """`predictor_corrector` with two peculiarities of the authors' code (github.com/zhongpc/chggen).

    Going back up a level adds noise of the variance ``σ²_t − σ²_{t−1}`` instead of its root, so that below 1 Å almost
    nothing is noised again. The corrector's ‖g‖ is that of each atom alone, so that an atom near its place takes a huge
    step; here it is bounded by sigma_max², which keeps the numbers finite.
    """

    def renoised(low: float, high: float) -> float:
        return high**2 - low**2

    def step_size(score: Tensor, batch: Batch, sigma: float) -> Tensor:
        return (6 * settings.snr**2 / score.square().sum(-1)).clamp_max(settings.sigma_max**2)

    return _resampled(denoiser, batch, guest, settings, noise, renoised=renoised, step_size=step_size)


def _resampled(
    denoiser: Denoiser,
    batch: Batch,
    guest: Tensor,
    settings: PredictorCorrectorSettings | PublishedSettings,
    noise: Noise,
    *,
    renoised: Callable[[float, float], float],
    step_size: Callable[[Tensor, Batch, float], Tensor],
) -> Batch:
    """The loop of both: ``renoised`` is the noise (Å) added on the way up, ``step_size`` ε (N,) of a Langevin step."""
    levels = [0.0, *exponential_levels(settings.sigma_min, settings.sigma_max, settings.steps)]
    resamples = 1 if bool(guest.all()) else settings.resamples
    everything = torch.ones_like(guest)
    host = batch
    batch = _move(batch, levels[-1] * noise.normal(), ~guest)
    for start, stop in jump_schedule(settings.steps, jump=settings.jump, resamples=resamples):
        if stop > start:
            batch = _move(batch, renoised(levels[start], levels[stop]) * noise.normal(), everything)
            continue
        batch = _predict(denoiser, batch, everything, noise, high=levels[start], low=levels[stop])
        for _ in range(settings.correctors if levels[stop] > 0 else 0):
            score = denoiser(batch, _level(batch, levels[stop]), everything) / levels[stop] ** 2
            size = step_size(score, batch, levels[stop])[:, None]
            batch = _move(batch, size * score + (2 * size).sqrt() * noise.normal(), everything)
        noised_host = host.positions + levels[stop] * noise.normal()
        batch = batch.replace(positions=torch.where(guest[:, None], batch.positions, noised_host))
    return batch


def jump_schedule(steps: int, *, jump: int, resamples: int) -> Iterator[tuple[int, int]]:
    """Moves between noise levels, from ``steps`` (noisiest) to 0 (clean), as in listing 1 of the ICML paper.

    Every ``jump`` levels it goes ``jump`` levels back up and down again, ``resamples`` − 1 times.

    >>> list(jump_schedule(2, jump=1, resamples=2))
    [(2, 1), (1, 2), (2, 1), (1, 0)]
    """
    left = dict.fromkeys(range(1, steps - jump + 1, jump), resamples - 1)
    level = steps
    while level > 0:
        yield level, level - 1
        level -= 1
        if left.get(level, 0) > 0:
            left[level] -= 1
            for _ in range(jump):
                yield level, level + 1
                level += 1


def _predict(
    denoiser: Denoiser, batch: Batch, where: Tensor, noise: Noise, *, high: float, low: float, temperature: float = 1.0
) -> Batch:
    """Ancestral step of the atoms in ``where`` from sigma ``high`` to ``low``, see `ancestral_step`."""
    share, spread = ancestral_step(high, low, temperature=temperature)
    return _move(batch, share * denoiser(batch, _level(batch, high), where) + spread * noise.normal(), where)


def ancestral_step(high: float, low: float, *, temperature: float) -> tuple[float, float]:
    """Share f of the displacement D to move by from sigma ``high`` to ``low``, and the noise to add (Å).

    Reverse diffusion with the score divided by T is dx = D/(Tu) du + √du z in u = σ², du > 0 on the way down. Near a
    site e away D = −e, and the equation is linear. Its solution is exact for a step of any length:

        e ← (1 − f) e + spread z,    f = 1 − (σ'/σ)^(2/T),    spread² = c (σ'² − (1 − f)² σ²),    c = T/(2 − T).

    The variance c σ² at one level becomes c σ'² at the next, f never exceeds 1, and the step to zero goes to the site.
    T = 1 is the papers' step (CHGGen, eq. 4).

    >>> ancestral_step(1.0, 0.5, temperature=1.0) == (0.75, 0.5 * 0.75**0.5)
    True
    >>> ancestral_step(0.01, 0.0, temperature=0.2)
    (1.0, 0.0)
    """
    ratio = low / high
    spread = low * (temperature / (2 - temperature) * (1 - ratio ** (4 / temperature - 2))) ** 0.5
    return 1 - ratio ** (2 / temperature), spread


def _step_size(score: Tensor, batch: Batch, sigma: float, settings: PredictorCorrectorSettings) -> Tensor:
    """(B,) ε of a Langevin step x ← x + ε g + √(2ε) z, ε = 2(√3 δ/‖g‖)² (CHGGen, unconditional generation).

    The paper does not define ‖g‖. It is either its expectation √3/σ, so that ε = 2δ²σ², or, measured, the root mean
    square of the score over the crystal's atoms. The latter makes ε depend on the position, which Langevin dynamics
    does not allow: a crystal whose few atoms happen to be near their places takes a huge step, and samples spread too
    widely. There ε is bounded by sigma_max².
    """
    if settings.norm == "expected":
        return _level(batch, 2 * (settings.snr * sigma) ** 2)
    square = score.new_zeros(len(batch)).index_add_(0, batch.owner, score.square().sum(-1)) / batch.counts
    return (6 * settings.snr**2 / square).clamp_max(settings.sigma_max**2)


_SAMPLERS = cast(
    dict[str, Callable[[Denoiser, Batch, Tensor, SamplerSettings, Noise], Batch]],
    {"ancestral": ancestral, "heun": heun, "predictor-corrector": predictor_corrector, "published": published},
)
