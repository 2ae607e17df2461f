"""Which crystals explain a measured powder pattern: one phase, or a mixture of two.

Patterns are compared by the cosine of the angle between the square roots of their profiles, in which weak reflections
count and preferred orientation matters less. A relaxed cell is off by per cents, so the cells are scaled: along the
logarithm of sin θ a change of volume is a shift, and all of them are tried at once. The best are then strained as their
symmetry allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from model.crystals.crystal import Crystal
from model.symmetry.space_group import onto_group
from model.verification.diffraction import (
    RADIATION,
    STEP,
    WIDTH,
    Pattern,
    Reflections,
    grid_of,
    profile,
    reflections,
    without_background,
)

LARGEST = 0.03  # relative change of the cell's lengths
FINE = 5e-4  # step of ln sin θ, and so of the scale of a cell
BROAD = 0.3  # degrees, width of the peaks when scales are tried; wider than real ones, so that no peak is missed
FINAL = 0.2  # degrees, width of the peaks when strained cells are compared
FITTED = 12  # best crystals, or pairs, whose cells are strained
SCALES = 1  # scales of a crystal alone that are tried
REACH = 6  # steps within which only the best scale counts
SYMPREC = 0.01  # Å, tolerance of the symmetry that a strain keeps


@dataclass(frozen=True, eq=False, kw_only=True)
class PatternMatch:
    """A crystal, or a mixture, against a measured pattern.

    Attributes:
        crystals: their places in the list that was compared; one or two.
        similarity: 0 to 1, cosine of the square roots of the profiles.
        shares: of each crystal in the integrated intensity; they sum to 1.
        lattices: (3, 3) of each crystal, Å, that fit best.
        calculated: (m,) profile of each on the grid, scaled to the measured pattern.
    """

    crystals: tuple[int, ...]
    similarity: float
    shares: tuple[float, ...]
    lattices: tuple[np.ndarray, ...]
    calculated: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class PatternRanking:
    """All crystals against a measured pattern.

    Attributes:
        grid: (m,) 2θ in degrees.
        measured: (m,) intensities without background, the highest 1.
        single: one phase each, most similar first.
        pairs: mixtures of two, most similar first; only the best.
    """

    grid: np.ndarray
    measured: np.ndarray
    single: list[PatternMatch]
    pairs: list[PatternMatch]


def rank_patterns(
    crystals: Sequence[Crystal], pattern: Pattern, *, radiation: str = RADIATION, mixtures: bool = True
) -> PatternRanking:
    """Rank crystals by how well they explain a measured pattern.

    Args:
        crystals: to compare.
        pattern: as measured, with its background.
        radiation: see `model.verification.diffraction.RADIATIONS`.
        mixtures: whether to try all pairs of them too.

    Raises:
        ValueError: no peak stands out of the pattern.
    """
    grid = grid_of(pattern)
    measured = without_background(pattern, grid)
    if not measured.any():
        raise ValueError("no peak stands out of the background of the measured pattern")
    fit = _Fit(grid, measured / measured.max())
    highest = min(2 * np.degrees(np.arcsin(min(np.sin(np.radians(grid[-1] / 2)) * (1 + LARGEST), 0.999))), 179.0)
    phases = [_Phase.of(reflections(one, highest=highest, radiation=radiation), fit) for one in crystals]
    single = [fit.alone(place, phases) for place in range(len(phases))]
    single.sort(key=lambda one: -one.similarity)
    single = [fit.strained(one, phases) for one in single[:FITTED]] + single[FITTED:]
    single.sort(key=lambda one: -one.similarity)
    pairs = []
    if mixtures and len(crystals) > 1:
        pairs = [fit.strained(one, phases) for one in fit.pairs(single[:FITTED], phases)]
        pairs.sort(key=lambda one: -one.similarity)
    return PatternRanking(grid=grid, measured=fit.measured, single=single, pairs=pairs)


@dataclass(frozen=True, eq=False)
class _Phase:
    """A crystal in the comparison.

    Attributes:
        peaks: its reflections.
        scales: (SCALES,) relative lengths of the cell at which it fits best, best first.
        strains: (k, 3, 3) independent strains that keep its symmetry.
    """

    peaks: Reflections
    scales: np.ndarray
    strains: np.ndarray

    @classmethod
    def of(cls, peaks: Reflections, fit: _Fit) -> _Phase:
        return cls(peaks, fit.best_scales(peaks), invariant_strains(peaks.crystal))

    def lattice(self, scale: float, parameters: np.ndarray) -> np.ndarray:
        lattice: np.ndarray = self.peaks.crystal.lattice @ (
            scale * np.eye(3) + np.tensordot(parameters, self.strains, axes=1)
        )
        return lattice


def invariant_strains(crystal: Crystal) -> np.ndarray:
    """(k, 3, 3) orthonormal strains that keep the symmetry of a crystal; k goes from 1, cubic, to 6, triclinic."""
    found = onto_group(crystal, SYMPREC)
    rotations = np.eye(3)[None] if found is None else np.stack([rotation for rotation, _ in found[1]])
    basis = []
    for i in range(3):
        for j in range(i, 3):
            strain = np.zeros((3, 3))
            strain[i, j] = strain[j, i] = 1.0
            basis.append((rotations.transpose(0, 2, 1) @ strain @ rotations).mean(0).ravel())
    _, sizes, rows = np.linalg.svd(np.array(basis))
    invariant: np.ndarray = rows[:6][sizes > 1e-6].reshape(-1, 3, 3)
    return invariant


class _Fit:
    """The measured pattern, and crystals compared with it.

    Args:
        grid: (m,) 2θ in degrees.
        measured: (m,) without background, the highest 1.
    """

    def __init__(self, grid: np.ndarray, measured: np.ndarray) -> None:
        self.grid, self.measured = grid, measured
        logs = np.log(np.sin(np.radians(grid / 2)))
        self.logs = np.arange(logs[0], logs[-1], FINE)
        self.along = 2 * np.degrees(np.arcsin(np.exp(self.logs)))  # 2θ at uniform ln sin θ
        self.widths = {width: profile(grid, measured, grid, width) for width in (2 * BROAD, BROAD, FINAL)}
        self.roots = np.sqrt(np.interp(self.along, grid, self.widths[2 * BROAD]))
        self.shifts = np.arange(-round(LARGEST / FINE), round(LARGEST / FINE) + 1)

    def best_scales(self, peaks: Reflections, residual: np.ndarray | None = None, count: int = SCALES) -> np.ndarray:
        """(count,) relative lengths of a cell at which it fits best; best first.

        Args:
            peaks: of the crystal.
            residual: (m,) what is to be fitted (default: the measured pattern).
            count: number of scales.
        """
        roots = self.roots
        if residual is not None:
            roots = np.sqrt(np.interp(self.along, self.grid, residual))
        rows, sizes = self._shifted(peaks)
        values = rows @ roots / sizes
        chosen: list[int] = []
        for place in np.argsort(-values):
            if all(abs(place - other) > REACH for other in chosen):
                chosen.append(int(place))
            if len(chosen) == count:
                break
        scales: np.ndarray = np.exp(FINE * self.shifts[chosen])
        return scales

    def _shifted(self, peaks: Reflections) -> tuple[np.ndarray, np.ndarray]:
        """(shifts, n) square roots of a crystal's profile along ln sin θ at all scales, and their norms."""
        first, last = self.grid[0] * (1 - 2 * LARGEST), self.grid[-1] * (1 + 2 * LARGEST)
        wide = np.arange(max(first, 0.5), min(last, 179.0), STEP)
        own = profile(peaks.angles, peaks.intensities, wide, 2 * BROAD)
        logs = self.logs[0] + FINE * np.arange(self.shifts[0], len(self.logs) + self.shifts[-1])
        roots = np.sqrt(np.interp(2 * np.degrees(np.arcsin(np.minimum(np.exp(logs), 1.0))), wide, own))
        rows = np.lib.stride_tricks.sliding_window_view(roots, len(self.logs))
        return rows, np.linalg.norm(rows, axis=1) + 1e-9

    def alone(self, place: int, phases: Sequence[_Phase]) -> PatternMatch:
        """A crystal alone, at its best scale."""
        phase = phases[place]
        lattice = phase.lattice(float(phase.scales[0]), np.zeros(len(phase.strains)))
        return self._match((place,), [lattice], phases, FINAL)

    def pairs(self, singles: Sequence[PatternMatch], phases: Sequence[_Phase]) -> list[PatternMatch]:
        """The most promising mixtures of two: what each of the best phases leaves over is looked for in the others.

        Args:
            singles: the best phases alone, strained.
            phases: all crystals.
        """
        measured, found = self.widths[2 * BROAD], dict[tuple[int, int], PatternMatch]()
        for one in singles:
            (first,) = one.crystals
            own = profile(
                phases[first].peaks.angles_in(one.lattices[0]), phases[first].peaks.intensities, self.grid, 2 * BROAD
            )
            share = float(np.quantile(measured[own > 0.1 * own.max()] / own[own > 0.1 * own.max()], 0.3))
            left = np.maximum(measured - share * own, 0.0)
            for second, phase in enumerate(phases):
                pair = min(first, second), max(first, second)
                if first == second:
                    continue
                for scale in self.best_scales(phase.peaks, left, 2):
                    start = {first: one.lattices[0], second: phase.lattice(scale, np.zeros(len(phase.strains)))}
                    match = self._match(pair, [start[i] for i in pair], phases, 2 * BROAD)
                    if pair not in found or match.similarity > found[pair].similarity:
                        found[pair] = match
        return sorted(found.values(), key=lambda one: -one.similarity)[: 2 * FITTED]

    def strained(self, match: PatternMatch, phases: Sequence[_Phase]) -> PatternMatch:
        """A match with the cells strained as their symmetry allows."""
        counts = [len(phases[i].strains) for i in match.crystals]
        ends = np.cumsum(counts)[:-1]

        def lattices(parameters: np.ndarray) -> list[np.ndarray]:
            parts = zip(match.crystals, match.lattices, np.split(parameters, ends), strict=True)
            return [lattice @ (np.eye(3) + np.tensordot(own, phases[i].strains, axes=1)) for i, lattice, own in parts]

        def misfit(parameters: np.ndarray, width: float) -> float:
            if np.abs(parameters).max() > LARGEST:
                return 1.0
            return 1 - self._compared(match.crystals, lattices(parameters), phases, width)[0]

        best = np.zeros(sum(counts))
        for width, reach in ((2 * BROAD, 0.01), (BROAD, 0.004), (FINAL, 0.002)):
            simplex = best + np.vstack([np.zeros(len(best)), reach * np.eye(len(best))])
            options = {"initial_simplex": simplex, "maxfev": 40 * len(best) + 30, "xatol": 1e-4, "fatol": 1e-4}
            best = minimize(misfit, best, args=(width,), method="Nelder-Mead", options=options).x
        again = self._match(match.crystals, lattices(best), phases, FINAL)
        before = self._match(match.crystals, list(match.lattices), phases, FINAL)
        return max(before, again, key=lambda one: one.similarity)

    def _match(
        self, places: tuple[int, ...], lattices: Sequence[np.ndarray], phases: Sequence[_Phase], width: float
    ) -> PatternMatch:
        similarity, weights = self._compared(places, lattices, phases, width)
        shown = [
            weight * profile(phases[i].peaks.angles_in(lattice), phases[i].peaks.intensities, self.grid, WIDTH)
            for i, lattice, weight in zip(places, lattices, weights, strict=True)
        ]
        total = sum(one.sum() for one in shown) or 1.0
        return PatternMatch(
            crystals=places,
            similarity=similarity,
            shares=tuple(float(one.sum() / total) for one in shown),
            lattices=tuple(lattices),
            calculated=tuple(shown),
        )

    def _compared(
        self, places: tuple[int, ...], lattices: Sequence[np.ndarray], phases: Sequence[_Phase], width: float
    ) -> tuple[float, np.ndarray]:
        """Similarity, and the weights of the profiles; of two, those of least squares, none below 0."""
        rows = np.stack(
            [
                profile(phases[i].peaks.angles_in(lattice), phases[i].peaks.intensities, self.grid, width)
                for i, lattice in zip(places, lattices, strict=True)
            ]
        )
        measured = self.widths[width]
        gram = rows @ rows.T + 1e-12 * np.eye(len(rows))
        weights = np.linalg.solve(gram, rows @ measured)
        if (weights < 0).any():
            weights = np.where(weights == weights.max(), rows @ measured / gram.diagonal(), 0.0)
        roots, own = np.sqrt(measured), np.sqrt(np.maximum(weights @ rows, 0.0))
        size = np.linalg.norm(roots) * np.linalg.norm(own)
        return (float(roots @ own / size) if size else 0.0), weights
