"""Making a library: the phases near the hull, their crystals unchanged within the grid, the source kept."""

import numpy as np
import pandas as pd
import pytest

from model.crystals.parquet import read_crystals
from model.library.build import build_library
from model.library.phases import PhaseLibrary
from tests.support.data import PHASES


def test_the_crystals_are_those_of_the_file(tmp_path):
    frame = pd.read_parquet(PHASES)
    near = frame[frame["e_above_hull"] <= 0.005].set_index("material_id")
    count = build_library(PHASES, tmp_path / "x.parquet", within=0.005, version="1", source="ours")
    library = PhaseLibrary(tmp_path / "x.parquet")
    assert len(library) == count == len(near) < len(frame)
    assert library.about["source"] == "ours" and library.about["version"] == "1" and library.about["within"] == 0.005
    for name, crystal in zip(near.index, read_crystals(near), strict=True):
        stored = library.crystal(name)
        step = stored.fractional - crystal.fractional
        assert np.array_equal(stored.numbers, crystal.numbers)
        assert np.linalg.norm((step - np.round(step)) @ crystal.lattice, axis=1).max() < 0.01
        np.testing.assert_allclose(stored.lattice, crystal.lattice, atol=0.01)


def test_what_cannot_become_a_library_is_refused(tmp_path):
    frame = pd.read_parquet(PHASES)
    path, out = tmp_path / "structures.parquet", tmp_path / "library.parquet"
    about = {"version": "1", "source": "ours"}
    pd.concat([frame, frame]).to_parquet(path)
    with pytest.raises(ValueError, match="twice; each phase needs an identifier of its own"):
        build_library(path, out, within=1.0, **about)
    frame.assign(e_above_hull=1.0).to_parquet(path)
    with pytest.raises(ValueError, match=r"no phase within 0.01 eV/atom of the hull: raise --within"):
        build_library(path, out, **about)
    frame.drop(columns="cell").to_parquet(path)
    with pytest.raises(ValueError, match="no column cell"):
        build_library(path, out, **about)
    assert not out.exists()
