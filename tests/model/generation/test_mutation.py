import numpy as np
import pytest

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.generation.mutation import mutations, steps_apart

WHOLE = "Li3Ge2S5"
HALF = [0.0, 0.5]
ROCK_SALT = Crystal(
    5.64 * np.eye(3),
    np.array([[x, y, z] for x in HALF for y in HALF for z in HALF]),
    [11 if (x + y + z) % 1 == 0 else 17 for x in HALF for y in HALF for z in HALF],
)


@pytest.fixture(scope="module")
def known():
    """Ten atoms without symmetry."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)[:10] / 3
    return Crystal(rng.normal(size=(3, 3)) + 9 * np.eye(3), grid, [3] * 3 + [32] * 2 + [16] * 5)


@pytest.mark.parametrize(
    ("other", "steps"),
    [(WHOLE, 0), ("Li2Ge2S5", 1), ("Li3Ge2S6", 1), ("Li4GeS5", 1), ("Li3Ge2PS4", 1), ("Li4GeS6", 2), ("LiGe2S3", 4)],
)
def test_steps_apart_are_atoms_renamed_put_in_or_taken_out(other, steps):
    assert steps_apart(CellFormula.parse(WHOLE), CellFormula.parse(other)) == steps
    assert steps_apart(CellFormula.parse(other), CellFormula.parse(WHOLE)) == steps


@pytest.mark.parametrize("wanted", [WHOLE, "Li2Ge2S5", "Li3Ge2S6", "Li4GeS5", "Li3Ge2PS4"])
def test_changes_have_the_atoms_asked_for_and_leave_the_others_where_they_are(known, wanted):
    cell = CellFormula.parse(wanted)
    made = mutations(known, cell)
    assert made
    old = {(*place, z) for place, z in zip(known.fractional.tolist(), known.numbers.tolist(), strict=True)}
    for changed in made:
        assert sorted(changed.numbers.tolist()) == sorted(cell.numbers.tolist())
        assert np.array_equal(changed.lattice, known.lattice)
        new = {(*place, z) for place, z in zip(changed.fractional.tolist(), changed.numbers.tolist(), strict=True)}
        assert max(len(old - new), len(new - old)) == (2 if wanted == WHOLE else 1)
    assert len({changed.identity for changed in made}) == len(made)


@pytest.mark.parametrize(
    ("wanted", "number"), [(WHOLE, 3 * 2 + 3 * 5 + 2 * 5), ("Li2Ge2S5", 3), ("Li4GeS5", 2), ("Li3Ge2S4", 5)]
)
def test_without_symmetry_every_atom_and_every_unlike_pair_counts(known, wanted, number):
    assert len(mutations(known, CellFormula.parse(wanted))) == number


@pytest.mark.parametrize(
    ("wanted", "number"), [("Na4Cl4", 2), ("Na3Cl4", 1), ("Na4Cl3", 1), ("Na5Cl3", 1), ("LiNa3Cl4", 1), ("Na5Cl4", 1)]
)
def test_of_what_symmetry_makes_alike_one_is_changed(wanted, number):
    """In the cubic cell of rock salt Cl lies half an edge or half a diagonal away from Na, and one hole is left."""
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = ROCK_SALT.replace(lattice=ROCK_SALT.lattice @ rotation)
    shifted = ROCK_SALT.replace(fractional=ROCK_SALT.fractional + np.array([0.1, -0.3, 0.7]))
    for crystal in (ROCK_SALT, turned, shifted):
        assert len(mutations(crystal, CellFormula.parse(wanted))) == number


def test_the_hole_of_rock_salt_is_tetrahedral():
    (changed,) = mutations(ROCK_SALT, CellFormula.parse("Na5Cl4"))
    assert changed.fractional[-1] % 0.5 == pytest.approx([0.25] * 3)


def test_two_changes_are_refused(known):
    with pytest.raises(ValueError, match="more than one change"):
        mutations(known, CellFormula.parse("Li4GeS6"))
