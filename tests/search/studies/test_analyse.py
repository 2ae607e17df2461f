import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from model.crystals.crystal import Crystal
from model.potentials.catalog import DEFAULT
from model.relaxation.relax import RelaxSettings
from model.thermodynamics.reference import packaged_reference
from search.cli import app
from search.planning.prepare import run_stability, write_run_metadata
from search.storage.results import ResultStore, load_results
from search.storage.rows import StoredCrystal
from search.studies.analyse import (
    coordination_table,
    known_phases,
    run_voltages,
)
from search.studies.guest_uptake import empty_host, fillings_of, uptake_curve
from tests.support.crystals import rattled


@pytest.fixture
def run(tmp_path, cobaltate):
    ResultStore(tmp_path / "run").append("00000-gen-000-test", cobaltate["rows"])
    write_run_metadata(tmp_path / "run", cobaltate["config"], packaged_reference())
    return tmp_path / "run"


@pytest.fixture
def filled_run(tmp_path, cobaltate, licoo2):
    """A run in which a host was filled twice, what came of it gave a host that was filled again; and another host."""
    row = cobaltate["rows"][0]
    assert row.formula == "LiCoO2"
    row = replace(row, role="from_host", generator="inpainting", guests=["Li"], initial=StoredCrystal.of(licoo2))
    rows = [
        replace(row, candidate=name, framework=framework, parent=parent, energy=energy, e_d=energy + 6.0)
        for name, framework, parent, energy in (
            ("a", "host-1", None, -5.7),
            ("b", "host-1", None, -5.6),
            ("c", "b-f0", "b", -5.8),
            ("d", "host-2", "c2", -5.9),
        )
    ]
    rows.append(replace(rows[0], candidate="e", guests=["Co", "Li"], energy=-9.0))  # not Li alone
    ResultStore(tmp_path / "run").append("00000-gen-000-test", rows)
    write_run_metadata(tmp_path / "run", cobaltate["config"], packaged_reference())
    return tmp_path / "run"


@pytest.fixture
def crystal_file(tmp_path, licoo2):
    licoo2.to_pymatgen().to(tmp_path / "LiCoO2.cif")
    return tmp_path / "LiCoO2.cif"


def analysed(*arguments):
    result = CliRunner().invoke(app, ["analyse", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def test_coordination_of_found_and_known_crystals(licoo2):
    table = coordination_table([licoo2], [licoo2], ["Co", "Li", "O"]).set_index("element")
    assert table["coordination"].to_dict() == {"Co": 6, "Li": 6, "O": 6}
    assert table["neighbours"].to_dict() == {"Co": "6 O", "Li": "6 O", "O": "3 Co + 3 Li"}
    assert (table["found"] == table["known"]).all()
    alone = coordination_table([licoo2], [], ["Co", "Li", "O"])
    assert alone["known"].isna().all()


def test_a_file_is_analysed(crystal_file, tmp_path):
    text = analysed(crystal_file, "--guest", "Li", "--out", tmp_path / "out", "--against", crystal_file)
    assert "2D in (001) with hops of 2.82 Å" in text
    assert "Voids of CoO2 with radius > 1.5 Å" in text
    assert "Li migration paths" in text
    assert "┃ bottleneck Å ┃ percolates in" in text and "1.55 │ 1D with hops of 2.82 Å │" in text
    hops = pd.read_csv(tmp_path / "out" / "hops.csv")
    assert hops["length"].tolist() == pytest.approx([2.816], abs=1e-3)
    coordination = pd.read_csv(tmp_path / "out" / "coordination.csv")
    assert (coordination["found"] == coordination["known"]).all()
    for name in ("radial.png", "coordination.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_a_run_is_analysed_with_its_voltages(run):
    frame = load_results(run, structures=False)
    text = analysed(run, "--guest", "Li", "--host", "CoO2", "--top", 2)
    assert "Coordination in" in text
    assert "Voltage vs Li/Li+" in text
    assert "Best crystal for each Li content of CoO2" in text
    for name in ("voltage.png", "uptake.png"):
        assert (run / "analysis" / name).read_bytes().startswith(b"\x89PNG")
    curve = pd.read_csv(run / "analysis" / "uptake.csv")
    assert curve["formula"].tolist() == ["LiCoO2"]
    assert curve["candidate"].tolist() == [frame["candidate"][0]]  # the best of two
    stability = run_stability(run)
    known = stability.reference.of_system(stability.elements).groupby("formula")["energy_per_atom"].min()
    voltage = -(7 * known["Li(CoO2)2"] - 6 * known["CoO2"] - stability.hull_energy("Li"))
    assert f"│ CoO2 │ Li(CoO2)2 │ 0.00 – 0.50 │ {voltage:.2f} │" in text
    half = analysed(run, "--guest", "Li", "--host", "CoO2", "--top", 2, "--charge", 2)
    assert "Voltage vs Li/Li2+" in half
    assert f"│ CoO2 │ Li(CoO2)2 │ 0.00 – 0.50 │ {voltage / 2:.2f} │" in half


def test_a_framework_is_swept_alone_from_its_empty_host_on(filled_run):
    text = analysed(filled_run, "--guest", "Li", "--framework", "host-1")
    curve = pd.read_csv(filled_run / "analysis" / "uptake-host-1.csv")
    assert curve["candidate"].tolist() == ["empty host", "c"]
    assert curve["formula"].tolist() == ["CoO2", "LiCoO2"] and curve["host_kept"].tolist() == [False, True]
    assert curve["expansion"].tolist() == pytest.approx([0.0, curve["volume"][1] / curve["volume"][0] - 1])
    stability = run_stability(filled_run)
    empty = curve["e_d"][0] + stability.hull_energy("CoO2")
    assert -7 < empty < -6  # CHGNet 0.3.0 of O3-CoO2, eV/atom
    voltage = -(4 * -5.8 - 3 * empty - stability.hull_energy("Li"))
    assert f"│ CoO2 │ LiCoO2 │ 0.00 – 1.00 │ {voltage:.2f} │" in text


def test_a_hull_that_is_not_the_run_s_own_is_refused(filled_run):
    remembered = json.loads((filled_run / "run.json").read_text())
    (filled_run / "run.json").write_text(json.dumps(remembered | {"reference": "another"}))
    with pytest.raises(ValueError, match="was measured against another, and the reference is now"):
        run_stability(filled_run)


def test_an_empty_host_that_does_not_relax_is_told(filled_run):
    rows, host = fillings_of(load_results(filled_run, structures=False), "host-1", "Li")
    assert host.formula == "CoO2"
    rows = rows.assign(relaxation_settings=RelaxSettings(max_steps=0).model_dump_json())
    with pytest.raises(ValueError, match="the empty host CoO2 did not converge: step_limit"):
        empty_host(host.replace(lattice=0.9 * host.lattice), rows, run_stability(filled_run), DEFAULT)


def test_without_two_phases_there_are_no_voltages(filled_run):
    frame = load_results(filled_run, structures=False)
    assert run_voltages(frame, "Li", "CoO2", run_stability(filled_run), known=False) == []
    assert run_voltages(frame, "Li", "CoO2", run_stability(filled_run))


def test_the_curve_takes_the_best_of_each_content_and_says_if_the_host_stayed(licoo2):
    """CoO2 with none, half and all of its Li; at one half the host as it was beats one torn apart, and is kept."""
    two = Crystal.from_pymatgen(licoo2.to_pymatgen() * [2, 1, 1])
    half = two.select(np.arange(8) != np.flatnonzero(two.numbers == 3)[0])
    none = licoo2.select(licoo2.numbers != 3)
    wide = half.replace(lattice=half.lattice * 1.05)

    def row(name, initial, final, e_d, role="from_host"):
        columns = {"candidate": name, "formula": final.formula, "space_group": "P1", "status": "relaxed"}
        crystals = {"initial": StoredCrystal.of(initial).record, "final": StoredCrystal.of(final).record}
        return {**columns, **crystals, "role": role, "e_d": e_d}

    rows = [
        row("full", licoo2, licoo2, 0.0, "new"),
        row("kept", half, wide, 0.02),
        row("lost", half, rattled(half, width=1.0), 0.01),
        row("worse", half, half, 0.03),
        row("empty", none, none, 0.1),
        {**row("failed", half, half, -1.0), "status": "rejected"},
    ]
    curve = uptake_curve(pd.DataFrame(rows), "Li", "CoO2")
    assert curve["candidate"].tolist() == ["empty", "lost", "full"]
    assert curve["x"].tolist() == [0, 0.5, 1]
    assert curve["host_kept"].tolist() == [True, False, None]
    kept = uptake_curve(pd.DataFrame(rows[1:2]), "Li", "CoO2").iloc[0]
    assert kept["host_kept"]
    assert kept["volume_change"] == pytest.approx(1.05**3 - 1)
    assert kept["volume"] == pytest.approx(wide.volume / 2)
    with pytest.raises(ValueError, match="no relaxed crystal that consists of NiO2 and Li"):
        uptake_curve(pd.DataFrame(rows), "Li", "NiO2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{file}", "--barriers"), "give --guest, the element that moves"),
        (("{file}", "--guest", "Xx"), "'Xx' is not an element"),
        (("{file}", "--guest", "Li", "--host", "CoO2"), "need a run, not a crystal file"),
        (("{file}", "--guest", "Li", "--framework", "f"), "need a run, not a crystal file"),
        (("{run}", "--guest", "Li", "--charge", "2"), "--charge 2 is for the voltage curve"),
        (("{run}", "--guest", "Li", "--host", "CoO2", "--charge", "0"), "--charge 0: give the charge"),
        (("{run}", "--framework", "f"), "give --guest, the element that moves"),
        (("{run}", "--guest", "Li", "--framework", "f"), "f: the run filled no framework with Li alone"),
        (
            ("{filled}", "--guest", "Li", "--framework", "host"),
            "2 frameworks match; choose from host-1, host-2$",
        ),
        (
            ("{filled}", "--guest", "Li", "--framework", "x"),
            "x: no such framework .* Li alone; .* b-f0, host-1",
        ),
        (("{filled}", "--guest", "Li", "--framework", "host-1", "--host", "CoO2"), "--host or --framework, not both"),
        (("{file}", "--guest", "Li", "--max-length", "0"), r"--max-length and --height must be positive, got 0\.0"),
        (("{file}", "--against", "nowhere.parquet"), r"nowhere\.parquet does not exist"),
        (("nowhere.cif",), r"nowhere\.cif does not exist"),
        (("{run}", "--guest", "Li", "--host", "LiCoO2"), "contains the guest"),
    ],
)
def test_bad_input_is_told(request, crystal_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    runs = {"{run}": "run", "{filled}": "filled_run"}
    names = {"file": crystal_file} | {
        name.strip("{}"): request.getfixturevalue(fixture) for name, fixture in runs.items() if name in arguments
    }
    with pytest.raises(ValueError, match=words):
        analysed(*(argument.format(**names) for argument in arguments))


def test_nothing_known_is_told(licoo2, tmp_path):
    with pytest.raises(ValueError, match=r"empty\.cif does not exist"):
        known_phases([tmp_path / "empty.cif"], ["Li"])
    assert known_phases([], ["Li"]) == []
