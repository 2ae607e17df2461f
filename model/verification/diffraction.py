"""Powder diffraction: reflections of crystals, profiles of them, and measured patterns without their background.

Angles are 2θ in degrees. Structure factors and Lorentz-polarisation factors are pymatgen's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pymatgen.analysis.diffraction.xrd import WAVELENGTHS, XRDCalculator
from scipy.ndimage import gaussian_filter1d

from model.crystals.crystal import Crystal

RADIATION = "CuKa"
RADIATIONS = tuple(WAVELENGTHS)
WIDTH = 0.15  # degrees, full width at half maximum of the peaks of a profile
STEP = 0.02  # degrees between the points of a profile
FWHM = 2 * np.sqrt(2 * np.log(2))  # full width at half maximum of a Gaussian of standard deviation 1
CLIPPED = 4.0  # degrees, widest hump that is still a peak and not background


@dataclass(frozen=True, eq=False, kw_only=True)
class Pattern:
    """Intensity against angle, measured or calculated.

    Attributes:
        angles: (n,) 2θ in degrees, ascending.
        intensities: (n,) in any unit.
    """

    angles: np.ndarray
    intensities: np.ndarray

    def __post_init__(self) -> None:
        if self.angles.shape != self.intensities.shape or self.angles.ndim != 1:
            raise ValueError(
                f"angles and intensities must be (n,), got {self.angles.shape} and {self.intensities.shape}"
            )
        if not (np.diff(self.angles) > 0).all():
            raise ValueError("the angles of a pattern must ascend")


@dataclass(frozen=True, eq=False, kw_only=True)
class Reflections:
    """The powder reflections of a crystal; those of equal spacing are one.

    Attributes:
        crystal: that they belong to.
        indices: (n, 3) Miller indices in the crystal's cell.
        intensities: (n,) relative to the strongest, with Lorentz-polarisation factor.
        wavelength: Å.
    """

    crystal: Crystal
    indices: np.ndarray
    intensities: np.ndarray
    wavelength: float

    @cached_property
    def angles(self) -> np.ndarray:
        """(n,) 2θ in degrees."""
        return self.angles_in(self.crystal.lattice)

    def angles_in(self, lattice: np.ndarray) -> np.ndarray:
        """(n,) 2θ in degrees in a deformed cell ((3, 3) rows, Å); 180 for spacings too small to reflect."""
        inverse = np.linalg.norm(self.indices @ np.linalg.inv(lattice).T, axis=1)  # 1/d
        angles: np.ndarray = 2 * np.degrees(np.arcsin(np.minimum(self.wavelength * inverse / 2, 1.0)))
        return angles


def reflections(crystal: Crystal, *, highest: float, radiation: str = RADIATION) -> Reflections:
    """The reflections of a crystal up to an angle.

    Args:
        crystal: with at least one atom.
        highest: 2θ in degrees.
        radiation: one of `RADIATIONS`.

    Raises:
        ValueError: the radiation is unknown, or the angle not between 0 and 180°.

    >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    >>> reflections(salt, highest=50).angles.round(1).tolist()
    [27.4, 31.7, 45.5]
    """
    if radiation not in WAVELENGTHS:
        raise ValueError(f"unknown radiation {radiation!r}; choose from {', '.join(RADIATIONS)}")
    if not 0 < highest < 180:
        raise ValueError(f"the highest angle must lie between 0 and 180°, got {highest}")
    calculator = XRDCalculator(wavelength=radiation)
    found = calculator.get_pattern(crystal.to_pymatgen(), two_theta_range=(0, highest))
    indices = np.array([families[0]["hkl"] for families in found.hkls], dtype=float)
    if indices.shape[-1] == 4:  # hexagonal cells: h, k, i, l
        indices = indices[:, [0, 1, 3]]
    return Reflections(
        crystal=crystal,
        indices=indices.reshape(-1, 3),
        intensities=np.array(found.y) / 100,
        wavelength=WAVELENGTHS[radiation],
    )


def profile(angles: np.ndarray, intensities: np.ndarray, grid: np.ndarray, width: float = WIDTH) -> np.ndarray:
    """(m,) Gaussian peaks on a uniform grid of angles.

    Args:
        angles, intensities: (n,) positions in degrees and areas of the peaks.
        grid: (m,) degrees, uniform.
        width: degrees, full width at half maximum.
    """
    step = grid[1] - grid[0]
    place = (angles - grid[0]) / step
    inside = (place >= 0) & (place < len(grid) - 1)
    left = place[inside].astype(int)
    share = place[inside] - left
    sticks = np.bincount(left, intensities[inside] * (1 - share), len(grid))
    sticks += np.bincount(left + 1, intensities[inside] * share, len(grid))
    return np.asarray(gaussian_filter1d(sticks, width / FWHM / step, mode="constant"))


def without_background(pattern: Pattern, grid: np.ndarray) -> np.ndarray:
    """(m,) intensities of a measured pattern on a grid of angles, without background and noise; 0 or more.

    The background is found by clipping peaks (C. G. Ryan et al., Nucl. Instrum. Methods B 34, 396 (1988)), in the
    square root of the intensity, in which the noise of counting is the same everywhere.
    """
    step = grid[1] - grid[0]
    measured = np.interp(grid, pattern.angles, pattern.intensities - pattern.intensities.min())
    smooth = np.sqrt(np.maximum(gaussian_filter1d(measured, WIDTH / 2 / step), 0.0))
    background = smooth.copy()
    for reach in range(max(1, round(CLIPPED / 2 / step)), 0, -1):
        padded = np.pad(background, reach, mode="edge")
        background = np.minimum(background, (padded[: -2 * reach] + padded[2 * reach :]) / 2)
    noise = 1.4826 * np.median(np.abs(smooth - background))
    peaks: np.ndarray = np.maximum(smooth**2 - (background + 2 * noise) ** 2, 0.0)
    return peaks


def grid_of(pattern: Pattern) -> np.ndarray:
    """Uniform angles over the range of a measured pattern."""
    return np.arange(pattern.angles[0], pattern.angles[-1], STEP)
