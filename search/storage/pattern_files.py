"""Reading measured powder patterns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from model.verification.diffraction import Pattern

FEWEST = 100  # points of a pattern


def read_pattern(path: str | Path) -> Pattern:
    """A measured pattern: a text file with columns of 2θ in degrees and intensity.

    Further columns, such as errors, are ignored, and so are lines that do not begin with two numbers: comments and
    headings. Columns are separated by blanks, tabs, commas or semicolons.

    Raises:
        ValueError: no such file, too few points, or angles that are none.
    """
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"{path} does not exist")
    rows = [row for line in place.read_text(encoding="utf-8", errors="replace").splitlines() if (row := _numbers(line))]
    if len(rows) < FEWEST:
        raise ValueError(
            f"{path} has {len(rows)} lines of two numbers, at least {FEWEST} are needed: give 2θ in degrees and the "
            "intensity, one point a line"
        )
    angles, intensities = np.array(sorted(dict(rows).items())).T
    if angles[0] < 0 or angles[-1] >= 180:
        raise ValueError(f"{path}: 2θ must lie between 0 and 180°, it goes from {angles[0]:g} to {angles[-1]:g}")
    if not intensities.any():
        raise ValueError(f"{path}: all intensities are 0")
    above = angles > 0
    return Pattern(angles=angles[above], intensities=intensities[above])


def _numbers(line: str) -> tuple[float, float] | None:
    parts = [part for part in re.split(r"[\s,;]+", line.strip()) if part]
    try:
        first, second = float(parts[0]), float(parts[1])
    except (IndexError, ValueError):
        return None
    return (first, second) if np.isfinite([first, second]).all() else None
