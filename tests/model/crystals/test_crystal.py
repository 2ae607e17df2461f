"""The crystal type and its flat batch: conversions there and back, immutability, errors."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import bulk
from pymatgen.core import Composition, Lattice, Structure

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal


@pytest.fixture
def lithium_oxide() -> Crystal:
    """Conventional Li2O (antifluorite) in a skewed setting, one atom outside the cell."""
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.62), ["Li", "O"], [[0.25, 0.25, 0.25], [0, 0, 0]])
    crystal = Crystal.from_pymatgen(structure)
    skew = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    fractional = crystal.fractional @ np.linalg.inv(skew)
    fractional[3] += [2, 0, -1]
    return crystal.replace(lattice=skew @ crystal.lattice, fractional=fractional)


@pytest.fixture
def silicon() -> Crystal:
    return Crystal.from_ase(bulk("Si"))


def assert_same(one: Crystal, other: Crystal) -> None:
    np.testing.assert_allclose(one.lattice, other.lattice, atol=1e-12)
    np.testing.assert_allclose(one.fractional, other.fractional, atol=1e-12)
    np.testing.assert_array_equal(one.numbers, other.numbers)


def test_round_trip_through_pymatgen(lithium_oxide: Crystal) -> None:
    assert_same(Crystal.from_pymatgen(lithium_oxide.to_pymatgen()), lithium_oxide)


def test_round_trip_through_bytes(lithium_oxide: Crystal) -> None:
    content = lithium_oxide.to_bytes()
    assert Crystal.from_bytes(content).identity == lithium_oxide.identity
    assert len(content) == 72 + 25 * len(lithium_oxide)


def test_round_trip_through_ase(lithium_oxide: Crystal) -> None:
    atoms = lithium_oxide.to_ase()
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.positions, lithium_oxide.cartesian)
    assert_same(Crystal.from_ase(atoms), lithium_oxide)


def test_oxidation_states_are_dropped(lithium_oxide: Crystal) -> None:
    structure = lithium_oxide.to_pymatgen()
    structure.add_oxidation_state_by_element({"Li": 1, "O": -2})
    assert_same(Crystal.from_pymatgen(structure), lithium_oxide)


def test_partially_occupied_sites_are_refused() -> None:
    structure = Structure(Lattice.cubic(4), [{"Li": 0.5, "Na": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match=r"partially occupied.*at \[0\.0, 0\.0, 0\.0\]"):
        Crystal.from_pymatgen(structure)


def test_derived_quantities(lithium_oxide: Crystal) -> None:
    assert len(lithium_oxide) == 12
    assert lithium_oxide.volume == pytest.approx(4.62**3)
    assert lithium_oxide.composition == Composition("Li8O4")
    assert lithium_oxide.formula == "Li2O"
    assert lithium_oxide.symbols.count("O") == 4
    np.testing.assert_allclose(lithium_oxide.cartesian, lithium_oxide.fractional @ lithium_oxide.lattice)


def test_volume_of_a_left_handed_cell_is_positive(silicon: Crystal) -> None:
    assert silicon.replace(lattice=-silicon.lattice).volume == pytest.approx(silicon.volume)


def test_wrapped_moves_atoms_by_whole_cells(lithium_oxide: Crystal) -> None:
    wrapped = lithium_oxide.wrapped()
    moved = wrapped.fractional - lithium_oxide.fractional
    assert wrapped.fractional.min() >= 0
    assert wrapped.fractional.max() < 1
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-12)


def test_select_and_join_take_a_crystal_apart_and_together(lithium_oxide: Crystal) -> None:
    lithium = lithium_oxide.numbers == 3
    host, guests = lithium_oxide.select(~lithium), lithium_oxide.select(lithium)
    assert (host.formula, len(guests)) == ("O2", 8)
    whole = host.join(guests)
    order = np.concatenate([np.flatnonzero(~lithium), np.flatnonzero(lithium)])
    np.testing.assert_array_equal(whole.fractional, lithium_oxide.fractional[order])
    np.testing.assert_array_equal(whole.numbers, lithium_oxide.numbers[order])


def test_crystal_without_atoms(silicon: Crystal) -> None:
    empty = silicon.select(np.zeros(2, dtype=bool))
    assert len(empty) == 0
    assert empty.fractional.shape == (0, 3)
    assert empty.composition == Composition()


@pytest.mark.parametrize("name", ["lattice", "fractional", "numbers"])
def test_nothing_can_be_changed_in_place(silicon: Crystal, name: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(silicon, name)[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(silicon, name, getattr(silicon, name))


def test_arrays_given_are_copied() -> None:
    fractional = np.zeros((1, 3))
    crystal = Crystal(np.eye(3), fractional, [3])
    fractional[0] = 0.5
    assert crystal.fractional.max() == 0


@pytest.mark.parametrize(
    ("numbers", "message"),
    [([3], "1 atomic numbers for 2 positions"), ([3, 0], r"118, got 0\.\.3"), ([3, 119], r"118, got 3\.\.119")],
)
def test_wrong_atomic_numbers_are_refused(numbers: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Crystal(np.eye(3), np.zeros((2, 3)), numbers)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        Crystal(np.eye(2), np.zeros((1, 3)), [3])


def test_identity_depends_on_every_number(silicon: Crystal) -> None:
    changes = [
        {"lattice": silicon.lattice * (1 + 1e-15)},
        {"fractional": silicon.fractional + 1e-15},
        {"numbers": [14, 32]},
    ]
    identities = {silicon.identity, *(silicon.replace(**change).identity for change in changes)}
    assert len(identities) == 4
    assert silicon.replace().identity == silicon.identity
    assert len(silicon.identity) == 16


# --- batch --------------------------------------------------------------------------------------------------------


def test_round_trip_through_a_ragged_batch(lithium_oxide: Crystal, silicon: Crystal) -> None:
    batch = Batch.from_crystals([lithium_oxide, silicon, lithium_oxide], dtype=torch.float64)
    assert len(batch) == 3
    for made, crystal in zip(batch.to_crystals(), [lithium_oxide, silicon, lithium_oxide], strict=True):
        assert_same(made, crystal)


def test_batch_has_the_documented_shapes(lithium_oxide: Crystal, silicon: Crystal) -> None:
    batch = Batch.from_crystals([silicon, lithium_oxide])
    assert batch.lattice.shape == (2, 3, 3)
    assert batch.positions.shape == (14, 3)
    assert batch.positions.dtype == torch.float32
    assert batch.counts.tolist() == [2, 12]
    assert batch.owner.tolist() == [0] * 2 + [1] * 12
    torch.testing.assert_close(
        batch.fractional()[2:], torch.tensor(lithium_oxide.fractional, dtype=torch.float32), rtol=0, atol=1e-5
    )


def test_batch_replace_makes_a_new_one(silicon: Crystal) -> None:
    batch = Batch.from_crystals([silicon])
    moved = batch.replace(positions=batch.positions + 1)
    assert (moved.positions - batch.positions).min() > 0.9
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.positions = moved.positions


def test_empty_batches_are_refused(silicon: Crystal) -> None:
    with pytest.raises(ValueError, match=r"got sizes \[\]"):
        Batch.from_crystals([])
    with pytest.raises(ValueError, match=r"got sizes \[2, 0\]"):
        Batch.from_crystals([silicon, silicon.select(np.zeros(2, dtype=bool))])
