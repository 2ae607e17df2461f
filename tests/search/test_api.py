"""The five calls for scripts and notebooks: crystals in and out, results of many runs, displays without a network."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Structure

from search.api import evaluate, inpaint, load_results, relax
from search.reporting.run_view import Run

ROOT = Path(__file__).resolve().parents[2]


def test_crystals_come_out_as_what_they_went_in_as(lisi, tmp_path):
    structure, atoms = lisi.to_pymatgen(), lisi.to_ase()
    structure.to(filename=str(tmp_path / "LiSi.cif"))
    points = evaluate([structure, atoms, tmp_path / "LiSi.cif"])
    assert [type(one.structure) for one in points] == [Structure, Atoms, Structure]
    assert np.ptp([one.energy for one in points]) < 1e-5
    assert points[0].formula == "LiSi" and points[0].e_d > 0 and sum(points[0].products.values()) > 0.98


def test_one_crystal_gives_one_result(lisi):
    relaxed = relax(lisi.to_ase(), progress=False)
    assert isinstance(relaxed.structure, Atoms) and relaxed.converged and relaxed.space_group == "Pm-3m"
    assert relaxed.energy < evaluate(lisi.to_ase()).energy and relaxed.forces.shape == (2, 3)


def test_a_potential_that_cannot_know_a_crystal_says_so():
    far = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 15]], cell=[30, 30, 30], pbc=True)
    point = evaluate(far)
    assert np.isnan(point.energy) and np.isnan(point.e_d) and "neighbour" in point.problem


def test_guests_are_placed(lisi):
    filled = inpaint(lisi.to_pymatgen(), {"Li": 1}, samples=2, progress=False)
    assert all(len(one.structure) == 3 for one in filled)
    assert [one.energy for one in filled] == sorted(one.energy for one in filled)


def test_results_of_several_runs(small_run):
    both = load_results([small_run, str(small_run.parent / f"{small_run.name[:-1]}*")], structures=False)
    assert set(both["run"]) == {str(small_run)} and len(both) == 3  # named twice, read once
    with pytest.raises(ValueError, match="no run matches"):
        load_results(str(small_run / "none*"))


def test_a_run_shows_hull_table_and_crystal_without_a_network(small_run):
    run = Run(small_run)
    shown = run._repr_html_()
    assert shown.index("<svg") < shown.index("<table") < shown.index("<iframe")
    assert "LiSi, " in shown
    assert not re.search(r"(?:src|href)=[\"']?https?:", re.sub(r"srcdoc='.*?'", "", shown, flags=re.DOTALL))
    assert "<script src" not in shown
    assert run.crystal(2).structure.composition.reduced_formula == "LiSi"
    with pytest.raises(ValueError, match="has 2 distinct relaxed crystals, and 3 was asked for"):
        run.crystal(3)
    assert run.hull().data


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text())
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["point"].e_d < 0.05 and names["filled"][0].formula == "LiTiS2"
    assert names["run"].best()["e_d"].min() < 0.1 and len(names["rows"])


def test_the_notebook_was_executed():
    cells = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text())["cells"]
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert not [one for some in outputs for one in some if one["output_type"] == "error"]
    assert any("text/html" in one.get("data", {}) for some in outputs for one in some)
