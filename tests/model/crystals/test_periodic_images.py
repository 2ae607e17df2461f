"""Nearest images against ASE's, which reduces the cell first; spacings of planes against volume over area."""

import numpy as np
import pytest
import torch
from ase.geometry import find_mic, minkowski_reduce
from pymatgen.core import Lattice

from model.crystals.periodic_images import (
    cells_across,
    image_steps,
    plane_spacings,
    rounded_lengths,
    rounded_steps,
    shortest_lengths,
    shortest_steps,
)

CELLS = {
    "cubic": 4 * np.eye(3),
    "hexagonal": Lattice.hexagonal(3, 7).matrix,
    "rhombohedral": Lattice.rhombohedral(4, 60).matrix,
    "triclinic": minkowski_reduce(Lattice.from_parameters(4.1, 5.2, 6.3, 72, 81, 66).matrix)[0],
}


@pytest.fixture(params=CELLS)
def lattice(request) -> np.ndarray:
    return CELLS[request.param]


@pytest.fixture
def steps() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 50, 3))


def test_the_shortest_of_27_images_is_the_nearest_in_a_reduced_cell(lattice, steps):
    vectors, expected = find_mic(steps.reshape(-1, 3) @ lattice, lattice)
    np.testing.assert_allclose(shortest_lengths(steps, lattice).ravel(), expected, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), expected)
    found = shortest_steps(steps, lattice)
    np.testing.assert_allclose(np.linalg.norm(found @ lattice, axis=-1).ravel(), expected, rtol=1e-12)
    np.testing.assert_allclose(found - steps, np.round(found - steps), atol=1e-12)


def test_the_rounded_image_is_the_nearest_below_half_the_smallest_spacing(lattice, steps):
    nearest, rounded = shortest_lengths(steps, lattice), rounded_lengths(steps, lattice)
    short = nearest < plane_spacings(torch.tensor(lattice)[None]).min().item() / 2
    assert 0.1 < short.mean() < 0.9
    np.testing.assert_allclose(rounded[short], nearest[short], rtol=1e-12)
    assert (rounded >= nearest).all()


def test_rounding_alone_is_not_enough_for_long_steps():
    """In an fcc cell the octahedral hole is half a cube's edge from an atom; rounding takes the long way."""
    fcc = 2 * (1 - np.eye(3))
    assert rounded_lengths(np.array([0.5, 0.5, 0.5]), fcc) == pytest.approx(12**0.5)
    assert shortest_lengths(np.array([0.5, 0.5, 0.5]), fcc) == pytest.approx(2)


def test_arrays_and_tensors_are_rounded_alike(steps):
    assert np.array_equal(rounded_steps(torch.tensor(steps)).numpy(), rounded_steps(steps))


def test_reach_widens_the_images(steps):
    assert image_steps(steps).shape == (6, 50, 27, 3)
    assert image_steps(steps, reach=2).shape == (6, 50, 125, 3)
    assert image_steps(steps[0, 0], reach=2).min() < -2


def test_plane_spacings_are_distances_between_faces():
    lattice = np.array([[4.0, 0, 0], [3.0, 2.0, 0], [0, 0, 7.0]])
    volume = 4.0 * 2.0 * 7.0
    expected = [volume / (13**0.5 * 7.0), volume / (4.0 * 7.0), 7.0]
    np.testing.assert_allclose(plane_spacings(torch.tensor(lattice)[None])[0], expected)
    np.testing.assert_allclose(cells_across(lattice, 5.0), 5.0 / np.array(expected))
