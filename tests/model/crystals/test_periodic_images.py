"""Nearest images against ASE's, which reduces the cell first; spacings of planes against volume over area."""

import numpy as np
import pytest
import torch
from ase.geometry import find_mic, minkowski_reduce
from pymatgen.core import Lattice

from model.crystals.periodic_images import (
    cells_across,
    plane_spacings,
    reduced_cell,
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


SKEWED = [
    [[4, 0, 0], [15, 2, 0], [0, 0, 5]],
    [[3, 0, 0], [8.9, 3.1, 0], [0.2, -9.2, 3.3]],
    [[2.8, 0, 0], [-13, 2.5, 0], [20, 9, 3]],
    [[5, 0, 0], [4.9, 1, 0], [4.9, 0.9, 1]],
    [[30, 0, 0], [29, 4, 0], [-28, 3, 4]],
    np.array([[1, 4, -3], [0, 1, 5], [0, 0, 1]]) @ (4 * np.eye(3)),
]


@pytest.mark.parametrize("lattice", SKEWED)
def test_the_nearest_image_is_found_in_skewed_cells(lattice, steps):
    """Against all images within 12 cells of the reduced cell's: no reach in the cell as given is enough for all."""
    lattice = np.array(lattice, dtype=float)
    reduced, change = minkowski_reduce(lattice)
    cells = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3), -1).reshape(-1, 3) @ reduced
    few = steps[0]
    vectors = (few @ np.linalg.inv(change) % 1) @ reduced
    expected = np.linalg.norm(vectors[:, None] + cells, axis=-1).min(1)
    np.testing.assert_allclose(shortest_lengths(few, lattice), expected, rtol=1e-9)
    found = shortest_steps(few, lattice)
    np.testing.assert_allclose(np.linalg.norm(found @ lattice, axis=-1), expected, rtol=1e-9)
    np.testing.assert_allclose(found - few, np.round(found - few), atol=1e-9)


@pytest.mark.parametrize("lattice", SKEWED)
def test_the_first_reduced_vector_is_the_shortest(lattice):
    lattice = np.array(lattice, dtype=float)
    reduced, change = reduced_cell(lattice)
    np.testing.assert_allclose(change @ lattice, reduced)
    vectors = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3), -1).reshape(-1, 3) @ lattice
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.linalg.norm(reduced[0]) == pytest.approx(lengths[lengths > 1e-9].min())


def test_plane_spacings_are_distances_between_faces():
    lattice = np.array([[4.0, 0, 0], [3.0, 2.0, 0], [0, 0, 7.0]])
    volume = 4.0 * 2.0 * 7.0
    expected = [volume / (13**0.5 * 7.0), volume / (4.0 * 7.0), 7.0]
    np.testing.assert_allclose(plane_spacings(torch.tensor(lattice)[None])[0], expected)
    np.testing.assert_allclose(cells_across(lattice, 5.0), 5.0 / np.array(expected))
