from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from model.crystals.crystal import Crystal
from model.crystals.lattice import cell_vectors
from model.potentials.catalog import load_potential
from model.thermodynamics.reference import evaluate_reference, packaged_reference
from model.thermodynamics.stability import Stability
from search.cli import app
from search.storage.paths import run_path
from search.storage.ranking import rank
from search.storage.results import ResultStore, load_results
from search.storage.rows import unpack_or_raise
from search.studies.second_opinion import (
    FILE,
    load_second_opinion,
    missing_phases,
    second_opinions,
    take_second_opinion,
)
from tests.support.data import PHASES


def packaged_r2scan():
    return packaged_reference("chgnet-r2scan")


@pytest.fixture(scope="module")
def potential():
    return load_potential("chgnet-r2scan")


@pytest.fixture
def run(tmp_path, cobaltate):
    ResultStore(tmp_path).append("00000-gen-000-test", cobaltate["rows"])
    return tmp_path


@pytest.mark.parametrize(
    ("system", "missing"),
    [
        ("Li-Si", []),
        ("Zn-P-S", []),
        ("Na-Si", []),
        ("Mg-Ge", []),
        ("Li-Co-O", []),
        ("Li-P-S", ["Li3P", "LiS4"]),  # the data set has no structure of these
    ],
)
def test_the_packaged_table_covers_what_it_says(system, missing):
    assert missing_phases(packaged_reference(), packaged_r2scan(), system.split("-")) == missing


def test_an_answer_is_e_d_by_the_other_potential(run, potential):
    best = rank(load_results(run, structures=False), top=5)
    rows = second_opinions(best, packaged_r2scan(), potential)
    assert [row["candidate"] for row in rows] == best["candidate"].tolist()
    for row, final in zip(rows, best["final"], strict=True):
        crystal = unpack_or_raise(final)
        energy = potential.evaluate([crystal])[0].energy
        hull = Stability(packaged_r2scan(), {"Li", "Co", "O"}).hull_energy(crystal.composition)
        assert row["energy"] == pytest.approx(energy, abs=1e-6)
        assert row["e_d"] == pytest.approx(energy - hull, abs=1e-6)
        assert row["difference"] == row["e_d"] - row["e_d_first"]
        assert sum(share for _, share in row["products"]) == pytest.approx(1)


def test_disagreement_is_a_matter_of_tolerance(run, potential):
    best = rank(load_results(run, structures=False), top=1)
    (row,) = second_opinions(best, packaged_r2scan(), potential)
    size = abs(row["difference"])
    for tolerance, disagrees in ((0.99 * size, True), (1.01 * size, False)):
        (again,) = second_opinions(best, packaged_r2scan(), potential, tolerance=tolerance)
        assert again["disagrees"] is disagrees


def test_energies_of_another_functional_are_refused(run, potential):
    best = rank(load_results(run, structures=False), top=1)
    with pytest.raises(
        ValueError, match=r"energies of chgnet-r2scan cannot be compared with a reference of chgnet-0\.3\.0"
    ):
        second_opinions(best, packaged_reference(), potential)


def test_both_hulls_lack_what_one_does_not_know(run, potential):
    best, whole = rank(load_results(run, structures=False), top=1), packaged_r2scan()
    product = max(best["products"].iloc[0], key=len)
    part = replace(whole, phases=whole.phases[whole.phases["formula"] != product])
    (row,) = second_opinions(best, part, potential)
    assert row["missing"] == [product]
    assert row["e_d_run"] == best["e_d"].iloc[0]
    assert row["e_d_first"] < row["e_d_run"]  # a competitor less
    first = packaged_reference().of_system({"Li", "Co", "O"})
    first = first[first["formula"].isin(part.phases["formula"])]
    hull = Stability(replace(packaged_reference(), phases=first), "Li-Co-O")
    assert row["e_d_first"] == pytest.approx(best["energy"].iloc[0] - hull.hull_energy("LiCoO2"))


def test_a_reference_without_an_element_is_refused(run, potential):
    best, whole = rank(load_results(run, structures=False), top=1), packaged_r2scan()
    with pytest.raises(ValueError, match="no elemental phase of Co"):
        second_opinions(best, replace(whole, phases=whole.phases[whole.phases["formula"] != "Co"]), potential)


def test_an_opinion_on_ones_own_candidates_is_refused(run, potential):
    best = rank(load_results(run, structures=False), top=2, distinct=False).assign(potential="chgnet-r2scan")
    with pytest.raises(ValueError, match="chgnet-r2scan cannot give a second opinion on its own"):
        second_opinions(best, packaged_r2scan(), potential)
    with pytest.raises(ValueError, match=r"one potential; these are of chgnet-0\.3\.0, chgnet-r2scan"):
        second_opinions(best.assign(potential=["chgnet-r2scan", "chgnet-0.3.0"]), packaged_r2scan(), potential)


def test_an_r2scan_run_is_judged_by_the_other_potential(tmp_path, cobaltate):
    rows = [replace(row, potential="chgnet-r2scan") for row in cobaltate["rows"]]
    ResultStore(tmp_path).append("00000-gen-000-test", rows)
    (row,) = take_second_opinion(run_path(tmp_path), top=1)
    assert (row["potential_first"], row["potential"]) == ("chgnet-r2scan", "chgnet-0.3.0")
    hull = Stability(packaged_reference(), {"Li", "Co", "O"})
    assert row["e_d"] == pytest.approx(row["energy"] - hull.hull_energy("LiCoO2"))


def test_the_command_stores_what_it_prints(run):
    result = CliRunner().invoke(app, ["second-opinion", str(run), "--top", "1"])
    assert result.exit_code == 0
    assert "LiCoO2" in result.output and "chgnet-0.3.0" in result.output and "chgnet-r2scan" in result.output
    frame = load_second_opinion(run)
    assert len(frame) == 1
    assert frame.loc[0, "reference"] == "Materials Project phases (chgnet-r2scan)"
    assert (run / FILE).is_file()


def test_a_run_without_an_answer_says_how_to_get_one(run):
    with pytest.raises(ValueError, match="hostguide second-opinion"):
        load_second_opinion(run)


def test_the_packaged_energies_are_those_of_the_potential(potential):
    table = packaged_r2scan().phases.set_index("material_id")
    frame = pd.read_parquet(PHASES, filters=[("n_atoms", "<=", 12)])
    frame = frame[frame["material_id"].isin(table.index)]
    assert len(frame) >= 20
    crystals = [
        Crystal(cell_vectors(row.cell[:3], row.cell[3:]), row.frac_coords, row.atomic_numbers)
        for row in frame.itertuples()
    ]
    energies = np.array([one.energy for one in potential.evaluate(crystals)])
    assert energies == pytest.approx(table.loc[frame["material_id"], "energy_per_atom"].to_numpy(), abs=2e-6)


def test_a_reference_computed_here_agrees_with_the_packaged_one(potential):
    own = evaluate_reference(PHASES, {"Li", "Si"}, potential, within=0.03)
    hulls = [Stability(reference, "Li-Si") for reference in (own, packaged_r2scan())]
    for formula in ("Li5Si2", "LiSi", "Li2Si", "Li4Si"):
        assert hulls[0].hull_energy(formula) == pytest.approx(hulls[1].hull_energy(formula), abs=1e-5)
