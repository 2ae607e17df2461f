"""Known stable phases, fed through a search's own relaxation and hull, are judged to lie on the hull."""

import pandas as pd

from model.crystals.parquet import read_crystals
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import relax
from model.thermodynamics.stability import Stability
from search.config_file import load_config
from search.planning.prepare import load_reference
from tests.support.data import PHASES, ROOT


def test_stable_li_si_phases_lie_on_the_hull_within_1_mev():
    config = load_config(ROOT / "configs" / "li-si.yaml")
    stability = Stability(load_reference(config), config.compositions.elements)
    stable = {str(entry.attribute) for entry in stability.diagram.stable_entries}
    frame = pd.read_parquet(PHASES, filters=[("material_id", "in", stable)])
    assert set(frame["formula"]) == {"Li", "Si", "Li2Si", "Li7Si3", "Li15Si4", "Li21Si5"}
    outcomes = relax(read_crystals(frame), CHGNetPotential(), config.relaxation)
    for formula, outcome in zip(frame["formula"], outcomes, strict=True):
        assert outcome.converged, formula
        e_d = stability.decomposition(formula, outcome.energy_final).e_d
        assert abs(e_d) < 1e-3, f"{formula}: {1e3 * e_d:.2f} meV/atom"
