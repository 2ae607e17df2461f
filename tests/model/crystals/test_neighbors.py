"""Periodic neighbour lists against pymatgen and ASE."""

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from model.crystals import neighbors
from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import Edges, periodic_edges

CUTOFF = 5.0  # Å


@pytest.fixture
def crystals() -> list[Crystal]:
    """Unequal sizes: skewed, flat, left-handed and tiny cells, with atoms far outside them."""
    rng = np.random.default_rng(3)
    cells = [
        np.diag([4.0, 5.2, 6.0]),
        [[4.1, 0.0, 0.0], [3.5, 2.9, 0.0], [-2.2, 1.9, 7.0]],
        [[0.0, 3.0, 0.3], [9.0, 0.0, 0.0], [0.2, 0.0, 3.3]],
        np.diag([2.1, 2.3, 1.9]),
        [[12.0, 0.0, 0.0], [0.0, 12.5, 1.0], [4.0, 0.0, 11.0]],
    ]
    sizes = (5, 3, 4, 1, 9)
    return [Crystal(cell, rng.uniform(-2, 3, (n, 3)), [11] * n) for cell, n in zip(cells, sizes, strict=True)]


def edges_of(crystals: list[Crystal], cutoff: float = CUTOFF) -> tuple[Batch, Edges]:
    batch = Batch.from_crystals(crystals, dtype=torch.float64)
    return batch, periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=cutoff)


def rows(edges: Edges) -> np.ndarray:
    """(E, 5) receiver, sender, shift of each edge, sorted."""
    table = np.column_stack([edges.receiver, edges.sender, edges.shift])
    return table[np.lexsort(table.T[::-1])]


def test_edges_equal_those_of_ase(crystals: list[Crystal]) -> None:
    _, edges = edges_of(crystals)
    expected, first = [], 0
    for crystal in crystals:
        i, j, shift = neighbor_list("ijS", crystal.to_ase(), CUTOFF)
        expected.append(np.column_stack([i + first, j + first, shift]))
        first += len(crystal)
    table = np.concatenate(expected)
    np.testing.assert_array_equal(rows(edges), table[np.lexsort(table.T[::-1])])


def test_distances_equal_those_of_pymatgen(crystals: list[Crystal]) -> None:
    for crystal in crystals:
        batch, edges = edges_of([crystal])
        length = edges.vectors(batch.positions, batch.lattice, batch.owner).norm(dim=-1)
        ours = np.column_stack([edges.receiver, edges.sender, length])
        centre, other, _, distance = crystal.to_pymatgen().get_neighbor_list(CUTOFF, exclude_self=True)
        theirs = np.column_stack([centre, other, distance])
        by_pair_and_length = [np.lexsort(table.T[::-1]) for table in (ours, theirs)]
        np.testing.assert_allclose(ours[by_pair_and_length[0]], theirs[by_pair_and_length[1]], atol=1e-9)


def test_edges_are_sorted_by_receiver_then_sender(crystals: list[Crystal]) -> None:
    _, edges = edges_of(crystals)
    key = edges.receiver * 1000 + edges.sender
    assert (key.diff() >= 0).all()


def test_every_edge_has_its_reverse(crystals: list[Crystal]) -> None:
    _, edges = edges_of(crystals)
    np.testing.assert_array_equal(rows(edges), rows(Edges(edges.sender, edges.receiver, -edges.shift)))


def test_tiny_cell_counts_every_image() -> None:
    edge, cutoff = 1.3, 6.0
    _, edges = edges_of([Crystal(edge * np.eye(3), [[0.4, 0.1, 0.7]], [3])], cutoff)
    points = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), axis=-1).reshape(-1, 3)
    inside = np.linalg.norm(edge * points, axis=1) < cutoff
    assert len(edges) == inside.sum() - 1  # not the atom itself


def test_atoms_on_the_same_place_see_each_other() -> None:
    batch, edges = edges_of([Crystal(20 * np.eye(3), [[0.1, 0, 0], [0.1, 0, 0]], [3, 3])])
    assert rows(edges).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert edges.vectors(batch.positions, batch.lattice, batch.owner).abs().max() == 0


def test_isolated_atom_has_no_edges() -> None:
    _, edges = edges_of([Crystal(20 * np.eye(3), [[0.1, 0, 0]], [3])])
    assert len(edges) == 0
    assert edges.shift.shape == (0, 3)


@pytest.mark.parametrize("at_once", [1, 57, 1000])
def test_chunks_give_the_same_edges(crystals: list[Crystal], monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    _, whole = edges_of(crystals)
    monkeypatch.setattr(neighbors, "CANDIDATES_AT_ONCE", at_once)
    _, chunked = edges_of(crystals)
    for name in ("receiver", "sender", "shift"):
        assert torch.equal(getattr(whole, name), getattr(chunked, name))


def test_vectors_are_differentiable(crystals: list[Crystal]) -> None:
    batch, edges = edges_of(crystals[:2], 3.0)
    positions, lattice = batch.positions.requires_grad_(), batch.lattice.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, cell: edges.vectors(x, cell, batch.owner), (positions, lattice))


def test_cell_that_is_too_thin_is_refused() -> None:
    thin = Crystal(np.diag([1000.0, 1000.0, 1e-4]), [[0, 0, 0]], [3])
    with pytest.raises(ValueError, match=r"a cell needs 100001 periodic images within 5\.0 Å .*: too thin"):
        edges_of([thin])


def test_cell_without_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="no volume"):
        edges_of([Crystal([[1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 0, 0]], [3])])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    positions = torch.tensor([[0, value, 0]])
    with pytest.raises(ValueError, match="must be finite"):
        periodic_edges(positions, 4 * torch.eye(3)[None], torch.tensor([1]), cutoff=CUTOFF)
