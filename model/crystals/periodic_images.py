"""Nearest periodic images, and how far apart the lattice planes lie.

A step is the difference of two fractional positions; lattices are (3, 3) rows in Å. Two ways find its shortest image:

- `rounded_steps` takes every coordinate to [-1/2, 1/2]. This is the shortest image in every case where the shortest is
  less than half of the smallest distance between lattice planes. It is the cheap way to tell that two atoms coincide.
- `shortest_steps` and `shortest_lengths` compare that image with the 26 around it in the Minkowski-reduced cell, which
  is exact. They do what `ase.geometry.find_mic` does, for fractional steps of any shape, and reduce a cell only once.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from ase.geometry import minkowski_reduce

if TYPE_CHECKING:
    from torch import Tensor

    ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, Tensor)


def rounded_steps(steps: ArrayOrTensor) -> ArrayOrTensor:
    """Fractional steps (..., 3) with all coordinates taken to [-1/2, 1/2] by lattice vectors."""
    return steps - steps.round()


def rounded_lengths(steps: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """(...,) lengths in Å of the `rounded_steps` of fractional steps (..., 3)."""
    lengths: np.ndarray = np.linalg.norm(rounded_steps(steps) @ lattice, axis=-1)
    return lengths


def image_steps(steps: np.ndarray) -> np.ndarray:
    """(..., 27, 3) images of fractional steps (..., 3): the rounded one, and it moved by one cell to each side."""
    return rounded_steps(steps)[..., None, :] + _CELLS_AROUND


_CELLS_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


def shortest_steps(steps: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """(..., 3) the shortest images of fractional steps (..., 3).

    >>> oblique = np.array([[4.0, 0.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    >>> shortest_steps(np.array([1.75, 0.25, 0.0]), oblique).tolist()
    [-0.25, 0.25, 0.0]
    """
    reduced, change = reduced_cell(lattice)
    images = image_steps(steps @ np.linalg.inv(change))
    nearest = np.linalg.norm(images @ reduced, axis=-1).argmin(-1)
    shortest: np.ndarray = np.take_along_axis(images, nearest[..., None, None], -2)[..., 0, :] @ change
    return shortest


def shortest_lengths(steps: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """(...,) lengths in Å of the shortest images of fractional steps (..., 3).

    >>> oblique = np.array([[4.0, 0.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    >>> step = np.array([0.5, 0.5, 0.0])
    >>> round(float(rounded_lengths(step, oblique)), 3), round(float(shortest_lengths(step, oblique)), 3)
    (3.64, 1.118)
    """
    reduced, change = reduced_cell(lattice)
    images = image_steps(steps @ np.linalg.inv(change))
    lengths: np.ndarray = np.linalg.norm(images @ reduced, axis=-1).min(-1)
    return lengths


def reduced_cell(lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Minkowski-reduced cell (3, 3) of a lattice, and the change (3, 3) in reduced = change @ lattice.

    Its first row is the shortest lattice vector.
    """
    return _reduced(np.ascontiguousarray(lattice, dtype=float).tobytes())


@lru_cache(maxsize=256)
def _reduced(lattice: bytes) -> tuple[np.ndarray, np.ndarray]:
    cell, change = minkowski_reduce(np.frombuffer(lattice).reshape(3, 3))
    reduced = np.array(cell)
    for array in (reduced, change):
        array.setflags(write=False)
    return reduced, change


def plane_spacings(lattice: Tensor) -> Tensor:
    """(B, 3) distances in Å between opposite faces of each cell (B, 3, 3)."""
    return 1.0 / lattice.inverse().norm(dim=-2)


def cells_across(lattice: np.ndarray, distance: float) -> np.ndarray:
    """(3,) ``distance`` (Å) in units of the distances between the opposite faces of one cell (3, 3)."""
    return distance * np.linalg.norm(np.linalg.inv(lattice), axis=0)
