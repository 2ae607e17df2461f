"""What a judge said of some crystals, carried over to those that it has not seen.

The difference y between the E_d of the judge and that of the search is described by a Bayesian linear regression:

    y = Σ_{i<j} w_ij 4 x_i x_j + b E_d + u_f + ε

with the atomic fractions x (the first sum vanishes at the elements, where both E_d are zero by definition), the E_d of
the search (its lowest crystals are partly its luckiest errors, so b is negative), an offset u_f of each reduced
formula, and what is left, ε. Priors: w ~ N(0, 0.1²), b ~ N(0, 0.5²), u_f ~ N(0, τ²), ε ~ N(0, σ²), in eV/atom; τ and
σ are fitted by expectation maximisation (Bishop, Pattern Recognition and Machine Learning (2006), 9.3.4).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from model.crystals.composition import CellFormula

MIXING, SLOPE = 0.1, 0.5  # eV/atom and 1, standard deviations of the priors of w and b
START, LEAST = 0.03, 0.003  # eV/atom, first guess of τ and σ, and the lowest that they become
ITERATIONS = 8


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What is expected of a judge for crystals of one formula.

    Attributes:
        offset: eV/atom.
        slope: by how much of the search's E_d the judge's differs.
        error: eV/atom, standard deviation of what the judge will say.
    """

    offset: float = 0.0
    slope: float = 0.0
    error: float = START * 2**0.5

    def expected(self, e_d: float) -> float:
        """Expected E_d (eV/atom) by the judge of a crystal with this E_d in the search."""
        return self.offset + (1 + self.slope) * e_d

    def at(self, expected: float) -> float:
        """E_d in the search (eV/atom) at which this E_d of the judge is expected."""
        return (expected - self.offset) / (1 + self.slope)


class Correction:
    """Pairs of E_d and the regression through them.

    Args:
        elements: of the search.

    Example:
        >>> correction = Correction(["Na", "Ge"])
        >>> for e_d, judged in ((-0.07, 0.02), (-0.05, 0.04), (-0.06, 0.03)):
        ...     correction.add("NaGe2", e_d, judged)
        >>> round(correction.shift("NaGe2").expected(-0.06), 2)
        0.03
    """

    def __init__(self, elements: Collection[str]) -> None:
        self.pairs = list(combinations(sorted(elements), 2))
        self._formulas: dict[str, int] = {}
        self._rows: list[tuple[int, float, float]] = []  # formula, E_d, difference
        self._mixing: list[np.ndarray] = []  # of each formula, (pairs,)
        self._fitted: _Fitted | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, formula: str, e_d: float, e_d_judge: float) -> None:
        """Add a judged crystal: its reduced formula, and E_d (eV/atom) by the search and by the judge."""
        if formula not in self._formulas:
            self._formulas[formula] = len(self._formulas)
            self._mixing.append(self._products(formula))
        self._rows.append((self._formulas[formula], e_d, e_d_judge - e_d))
        self._fitted = None

    def shift(self, formula: str) -> Shift:
        """What is expected of the judge for a reduced formula; nothing is known without any pair."""
        if not self._rows:
            return Shift()
        if self._fitted is None:
            self._fitted = self._fit()
        fit, number = self._fitted, self._formulas.get(formula)
        row = np.zeros(len(fit.mean))
        row[: len(self.pairs)] = self._products(formula)
        if number is not None:
            row[len(self.pairs) + 1 + number] = 1.0
        variance = row @ fit.covariance @ row + fit.noise + (fit.spread if number is None else 0.0)
        return Shift(
            offset=float(row @ fit.mean), slope=float(fit.mean[len(self.pairs)]), error=float(np.sqrt(variance))
        )

    def _products(self, formula: str) -> np.ndarray:
        cell = CellFormula.parse(formula)
        return np.array([4 * cell.fraction(one) * cell.fraction(other) for one, other in self.pairs])

    def _fit(self) -> _Fitted:
        number, e_d, difference = (np.array(column) for column in zip(*self._rows, strict=True))
        n, p, f = len(number), len(self.pairs), len(self._formulas)
        design = np.zeros((n, p + 1 + f))
        design[:, :p], design[:, p] = np.array(self._mixing)[number], e_d
        design[np.arange(n), p + 1 + number] = 1.0
        gram, moment = design.T @ design, design.T @ difference
        noise = spread = START**2
        for _ in range(ITERATIONS):
            prior = np.concatenate([np.full(p, MIXING**-2), [SLOPE**-2], np.full(f, 1 / spread)])
            covariance = np.linalg.inv(gram / noise + np.diag(prior))
            mean = covariance @ moment / noise
            rest = np.square(difference - design @ mean).sum() + np.sum(gram * covariance)
            own = np.square(mean[p + 1 :]) + np.diag(covariance)[p + 1 :]
            # As if one more of each had been seen with the first guess.
            noise = max(LEAST**2, (rest + START**2) / (n + 1))
            spread = max(LEAST**2, (own.sum() + START**2) / (f + 1))
        return _Fitted(mean=mean, covariance=covariance, noise=noise, spread=spread)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fitted:
    mean: np.ndarray
    covariance: np.ndarray
    noise: float  # σ²
    spread: float  # τ²
