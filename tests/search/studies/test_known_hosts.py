"""Guests back in the hosts of three known crystals: the whole way of `hostguide inpaint`, with the packaged models."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals
from model.crystals.screening import ScreenSettings
from model.potentials.catalog import DEFAULT
from model.relaxation.polish import polish
from model.relaxation.relax import RelaxSettings
from model.stages import CrystalMaker, Relaxer
from search.studies.inpaint import fill, make_templates, polish_fillings

KNOWN = {
    "LiCoO2": ("R-3m", (2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]),
    "LiTiS2": ("P-3m1", (3.44, 6.19), ["Li", "Ti", "S"], [[0, 0, 0.5], [0, 0, 0], [1 / 3, 2 / 3, 0.235]]),
    "LiC6": ("P6/mmm", (4.305, 3.706), ["Li", "C"], [[0, 0, 0.5], [1 / 3, 0, 0]]),
}


@pytest.fixture(scope="module")
def stations():
    return CrystalMaker(None, "cpu"), Relaxer(DEFAULT, RelaxSettings(), ScreenSettings())


@pytest.mark.parametrize("name", KNOWN)
def test_lithium_returns_to_its_known_place(name, stations):
    group, cell, elements, places = KNOWN[name]
    structure = Structure.from_spacegroup(group, Lattice.hexagonal(*cell), elements, places).get_primitive_structure()
    known = Crystal.from_pymatgen(structure)
    maker, relaxer = stations
    (expected,) = polish([known], relaxer.potential, relaxer.relaxation)

    host = known.select(np.array(known.symbols) != "Li")
    filled, _ = fill(make_templates(host, {"Li": 1}, samples=4, seed=0), maker, relaxer)
    best = polish_fillings(filled, relaxer)[0][0]

    assert best.space_group == expected.space_group.symbol == group
    assert best.relaxation.energy_final == pytest.approx(expected.energy_final, abs=1e-3)
    same = DistinctCrystals(RELAXED)
    assert same.add(expected.final, energy=expected.energy_final) is None
    assert same.add(best.crystal, energy=best.relaxation.energy_final) == 0
