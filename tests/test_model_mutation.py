import numpy as np
import pytest

from model.composition import CellFormula
from model.crystal import Crystal
from model.mutation import MutationSettings, mutate, steps_apart
from model.screen import too_close
from model.stages import Generator

WHOLE = "Li3Ge2S5"


@pytest.fixture(scope="module")
def known():
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


@pytest.mark.parametrize("wanted", [WHOLE, "Li2Ge2S5", "Li3Ge2S6", "Li4GeS5", "Li4GeS6", "LiGe2S3", "Li3Ge2PS4"])
@pytest.mark.parametrize("seed", range(5))
def test_a_mutation_has_the_atoms_and_the_volume_asked_for_and_changes_no_more_than_it_must(known, wanted, seed):
    cell = CellFormula.parse(wanted)
    blank = mutate(known, cell, 700.0, seed)
    changed = blank.crystal
    assert sorted(changed.numbers.tolist()) == sorted(cell.numbers.tolist())
    assert changed.volume == pytest.approx(700.0)
    assert np.allclose(changed.lattice / np.cbrt(700.0 / known.volume), known.lattice)  # keeps its shape
    old = {(*place, z) for place, z in zip(known.fractional.round(6).tolist(), known.numbers.tolist(), strict=True)}
    kept = changed.select(~blank.guest)
    new = {(*place, z) for place, z in zip(kept.fractional.round(6).tolist(), kept.numbers.tolist(), strict=True)}
    touched = max(len(old - new), len(new - old) + int(blank.guest.sum()))
    assert touched == (2 if wanted == WHOLE else steps_apart(CellFormula.parse(WHOLE), cell))


def test_the_seed_decides_and_other_seeds_change_other_atoms(known):
    cell = CellFormula.parse("Li3Ge2S4")
    made = [mutate(known, cell, 700.0, seed).crystal.identity for seed in (*range(10), 0)]
    assert made[0] == made[-1]
    assert 1 < len(set(made)) <= 5  # five S to choose from


def test_atoms_that_are_put_in_find_room(known, tiny_weights):
    blanks = [mutate(known, CellFormula.parse(formula), 729.0, 1) for formula in ("Li5Ge2S5", WHOLE)]
    made = Generator(str(tiny_weights), "cpu").generate(blanks, MutationSettings())
    assert made.evaluations == [0, 0]
    assert made.score_model == [None, None]
    for blank, crystal in zip(blanks, made.crystals, strict=True):
        assert np.array_equal(crystal.numbers, blank.crystal.numbers)
        assert np.array_equal(crystal.fractional[~blank.guest], blank.crystal.fractional[~blank.guest])
        assert not too_close(crystal)
