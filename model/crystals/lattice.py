"""Random lattices of all fourteen Bravais types at a fixed volume."""

from __future__ import annotations

import numpy as np
from pydantic import model_validator

from model.settings import Settings

# Primitive vectors as rows, in units of the conventional vectors (International Tables A, table 1.5.4.1).
CENTRING = {
    "P": np.eye(3),
    "I": np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]),
    "F": np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]),
    "S": np.array([[0.5, 0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]),  # base-centred on C
    "R": np.eye(3),  # sampled as the rhombohedral cell itself
}

# Pearson's symbols: crystal family (c, t, o, m, a = triclinic, h) and centring.
BRAVAIS = ("cP", "cI", "cF", "tP", "tI", "oP", "oS", "oI", "oF", "mP", "mS", "aP", "hP", "hR")

Range = tuple[float, float]


class LatticeRanges(Settings):
    """Uniform ranges of the conventional cell; the ratios are the paper's, the angles are ours.

    The paper (Methods, hyperparameters) gives no angles. Its public code uses ratios 0.5 to 1.5 and angles 80 to 100°.
    """

    ratio: Range = (0.75, 1.25)  # b/a and c/a
    monoclinic: Range = (90.0, 120.0)  # β, degrees
    triclinic: Range = (60.0, 120.0)  # α, β and γ, degrees
    rhombohedral: Range = (50.0, 110.0)  # α, degrees
    min_volume_ratio: float = 0.35  # V/(abc); flatter triclinic cells are drawn again

    @model_validator(mode="after")
    def _check(self) -> LatticeRanges:
        limits = {"ratio": (0, np.inf), "monoclinic": (0, 180), "triclinic": (0, 180), "rhombohedral": (0, 120)}
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name)
            if not lowest < low <= high < highest:
                raise ValueError(f"{name} must be (low, high) inside ({lowest}, {highest}), got ({low}, {high})")
        if not 0 < self.min_volume_ratio < 1:
            raise ValueError(f"min_volume_ratio must lie between 0 and 1, got {self.min_volume_ratio}")
        return self


def sample_lattice(
    bravais: str, volume: float, rng: np.random.Generator, ranges: LatticeRanges | None = None
) -> np.ndarray:
    """Draw a primitive cell of a Bravais lattice.

    Args:
        bravais: one of `BRAVAIS`.
        volume: Å³ of the primitive cell, N·V0.
        rng: the only source of randomness.
        ranges: ratios and angles of the conventional cell.

    Returns:
        (3, 3) rows are primitive vectors in Å, right-handed.

    Example:
        >>> sample_lattice("cF", 16.0, np.random.default_rng(0)).round(6).tolist()
        [[0.0, 2.0, 2.0], [2.0, 0.0, 2.0], [2.0, 2.0, 0.0]]

    Raises:
        ValueError: the Bravais type is unknown, the volume not positive, or the ranges allow no cell.
    """
    if bravais not in BRAVAIS:
        raise ValueError(f"unknown Bravais lattice {bravais!r}: choose from {', '.join(BRAVAIS)}")
    if not (np.isfinite(volume) and volume > 0):
        raise ValueError(f"the volume must be positive, got {volume} Å³")
    lengths, angles = _conventional(bravais, rng, ranges or LatticeRanges())
    primitive = CENTRING[bravais[1]] @ cell_vectors(lengths, angles)
    return primitive * np.cbrt(volume / np.linalg.det(primitive))


def cell_vectors(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(3, 3) rows from lengths a, b, c and angles α, β, γ (degrees): a along x, b in the xy plane.

    Own code because `ase.geometry.cellpar_to_cell`, with the same orientation, rounds differently: the same seed would
    no longer give the same crystals.
    """
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(angles))
    sin_gamma = np.sin(np.radians(angles[2]))
    cy = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    shape = [[1, 0, 0], [cos_gamma, sin_gamma, 0], [cos_beta, cy, np.sqrt(1 - cos_beta**2 - cy**2)]]
    return np.asarray(lengths)[:, None] * np.array(shape)


def _conventional(bravais: str, rng: np.random.Generator, ranges: LatticeRanges) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (a = 1) and angles (degrees) of the conventional cell; rhombohedral axes for hR."""
    b, c = rng.uniform(*ranges.ratio, size=2)
    right = np.full(3, 90.0)
    match bravais[0]:
        case "c":
            return np.ones(3), right
        case "t":
            return np.array([1, 1, c]), right
        case "o":
            return np.array([1, b, c]), right
        case "m":
            return np.array([1, b, c]), np.array([90, rng.uniform(*ranges.monoclinic), 90])
        case "a":
            return np.array([1, b, c]), _triclinic_angles(rng, ranges)
    if bravais == "hR":
        return np.ones(3), np.full(3, rng.uniform(*ranges.rhombohedral))
    return np.array([1, 1, c]), np.array([90.0, 90.0, 120.0])


def _triclinic_angles(rng: np.random.Generator, ranges: LatticeRanges) -> np.ndarray:
    for _ in range(1000):
        angles = rng.uniform(*ranges.triclinic, size=3)
        cosines = np.cos(np.radians(angles))
        square = 1 - np.sum(cosines**2) + 2 * np.prod(cosines)  # (V/abc)²
        if square > ranges.min_volume_ratio**2:
            return angles
    raise ValueError(f"no triclinic cell with angles in {ranges.triclinic} has V/(abc) above {ranges.min_volume_ratio}")
