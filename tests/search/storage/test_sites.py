"""Distances between sites in any cell, and the common axis of moments."""

from __future__ import annotations

import numpy as np
import pytest
from ase.neighborlist import primitive_neighbor_list

from search.storage.sites import collinear, near_pairs


@pytest.mark.parametrize("radius", [0.02, 0.5, 0.9])
def test_near_pairs_are_those_of_ase_in_skewed_and_flat_cells(radius) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        lattice = rng.normal(size=(3, 3)) * rng.choice([1.0, 3.0, 6.0], size=(3, 1))
        if abs(np.linalg.det(lattice)) < 1:
            continue
        places = np.concatenate([rng.normal(size=(12, 3)), [[0, 0, 0], [-1e-17, 1e-17, 0], [1, 0.001, -2]]])
        _, _, found = near_pairs(lattice, places, radius)
        first, second, expected = primitive_neighbor_list("ijd", [True] * 3, lattice, places @ lattice, radius)
        np.testing.assert_allclose(np.sort(found), np.sort(expected[first <= second])[-len(found) :], atol=1e-9)
        assert len(found) == (first <= second).sum()


def test_moments_along_one_axis_are_signed_numbers() -> None:
    np.testing.assert_allclose(collinear(np.array([[0, 0, -2.0], [0, 0, 2], [0, 0, 0]])), [-2, 2, 0])
    np.testing.assert_allclose(collinear(np.array([[3.0, 4, 0], [-3, -4, 0]])), [5, -5])
    canted = np.array([[1.0, 0, 0], [0.9, 0.3, 0]])
    np.testing.assert_array_equal(collinear(canted), canted)
