"""The reconstruction benchmark: what counts as a match, how errors and shares are counted."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.crystal import Crystal
from model.sampler import HeunSettings
from model.stages import Generated
from search.reconstruct import Case, load_cases, match, reconstruct, summarise

SALT = Crystal(
    5.64 * np.eye(3),
    [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]],
    [17] * 4 + [11] * 4,
)
CASE = Case("salt", SALT, "Na")


def moved(crystal: Crystal, atom: int, shift: float) -> Crystal:
    fractional = crystal.fractional.copy()
    fractional[atom, 0] += shift / crystal.lattice[0, 0]
    return crystal.replace(fractional=fractional)


class Perfect:
    """Returns the crystal itself, or, for odd attempts, a guest in a wrong place."""

    def generate(self, blanks, settings):
        crystals = [moved(SALT, 7, 1.4) if i % 2 else SALT for i in range(len(blanks))]
        return Generated(crystals, 31, 0.0, "perfect")


def test_the_original_matches_without_error_and_a_lost_guest_does_not():
    assert match(SALT, CASE) == pytest.approx(0.0, abs=1e-6)
    assert match(moved(SALT, 7, 2.0), CASE) is None


def test_the_error_is_counted_per_guest():
    """One of four guests 0.2 Å off: the matcher takes out the mean shift of all eight atoms, 0.025 Å."""
    expected = np.sqrt((0.2**2 - 8 * 0.025**2) / 4)
    assert match(moved(SALT, 7, 0.2), CASE) == pytest.approx(expected, rel=0.05)


def test_shares_are_means_over_attempts_and_over_guests():
    attempts = reconstruct([CASE, CASE], Perfect(), HeunSettings(), samples=4)
    figures = summarise(attempts)["summary"]
    assert figures["raw_match"] == 0.5 and figures["oracle_match"] == 1.0 and figures["ranked_match"] is None
    assert figures["evaluations"] == 31


def write(path: Path, splits: list[str], guests: list[str]) -> Path:
    row = {
        "material_id": "salt", "cell": [5.64] * 3 + [90.0] * 3, "atomic_numbers": SALT.numbers.tolist(),
        "frac_coords": SALT.fractional.ravel().tolist(),
    }  # fmt: skip
    pd.DataFrame([{**row, "split": s, "guest": g} for s, g in zip(splits, guests, strict=True)]).to_parquet(path)
    return path


def test_cases_are_chosen_by_split_guest_and_limit(tmp_path):
    path = write(tmp_path / "data.parquet", ["test"] * 4 + ["train"], ["Na", "Na", "Na", "", "Na"])
    assert len(load_cases(path, split="test")) == 3
    assert len(load_cases(path, split="test", limit=2)) == 2
    with pytest.raises(ValueError, match="no case of split 'test' with guest Li"):
        load_cases(path, split="test", guest="Li")
    with pytest.raises(ValueError, match="does not exist"):
        load_cases(tmp_path / "none.parquet", split="test")
