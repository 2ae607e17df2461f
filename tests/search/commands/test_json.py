"""What commands print with `--json`: valid under its schema, and nothing else is on standard output."""

import json
import subprocess
import sys
from pathlib import Path

import ase.io
import jsonschema
import pytest

from search.reporting.records import RECORDS, schema
from search.storage.status import write_status

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def printed(call):
    """A function that runs a command with --json and returns what it printed, checked against its schema."""

    def checked(command, *arguments, code=0):
        exit_code, out, err = call(*command.split(), *arguments, "--json")
        assert exit_code == code, err
        found = json.loads(out)
        jsonschema.validate(found, schema(command), format_checker=jsonschema.FormatChecker())
        return found

    return checked


@pytest.fixture
def salt(tmp_path, lisi):
    path = tmp_path / "LiSi.cif"
    lisi.to_pymatgen().to(filename=str(path))
    return path


def test_results(printed, small_run):
    found = printed("results", small_run)
    assert [one["rank"] for one in found] == [1, 2]
    assert found[0]["e_d"] < found[1]["e_d"] and found[0]["formula"] == "LiSi"
    assert all(Path(one["file"]).is_file() for one in found)


def test_results_of_which_there_are_none(printed, small_run):
    assert printed("results", small_run, "--formula", "Li9Si") == []


def test_status(printed, small_run):
    write_status(small_run, message="running", expected=40, seconds_left=120.0, notes=["hot"], actors={})
    found = printed("status", small_run)
    assert found["state"] == "running" and found["minutes_left"] == 2 and found["notes"] == ["hot"]
    assert found["candidates"] == sum(found["statuses"].values()) == 3 and found["expected"] == 40


def test_a_search_that_was_killed(printed, small_run):
    write_status(small_run, message="running", expected=40, seconds_left=1.0, notes=[], actors={})
    said = json.loads((small_run / "status.json").read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (small_run / "status.json").write_text(json.dumps({**said, "process": gone.pid}))
    assert printed("status", small_run)["state"] == "killed"


def test_validate(printed, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ncompositions: {formulas: [Li3Si], max_atoms: 8}\npolicy: {rounds: 2}\n")
    found = printed("validate", path)
    assert found["formulas"][0]["atoms"] == [4, 8] and found["minutes"] > 0 and "Li2Si" in found["on_hull"]


def test_reference_show(printed):
    found = printed("reference show", "Li-Si")
    assert {"Li", "Si", "Li2Si"} <= {one["formula"] for one in found if one["above_hull"] < 1e-6}
    assert [one["above_hull"] for one in found] == sorted(one["above_hull"] for one in found)


def test_evaluate_and_relax(printed, salt, tmp_path):
    (point,) = printed("evaluate", salt)
    (relaxed,) = printed("relax", salt, "--out", tmp_path / "out")
    assert point["atoms"] == 2 and sum(point["products"].values()) == pytest.approx(1, abs=0.02)
    assert relaxed["energy_final"] < relaxed["energy_initial"] == pytest.approx(point["energy"], abs=1e-5)
    assert Path(relaxed["file"]).is_file() and relaxed["outcome"] == "converged"


def test_what_cannot_be_read_is_in_the_list_and_in_the_exit_code(printed, tmp_path, lisi):
    fused = lisi.replace(fractional=lisi.fractional * 0.01)
    ase.io.write(tmp_path / "both.extxyz", [lisi.to_ase(), fused.to_ase()])
    found = printed("evaluate", tmp_path / "both.extxyz", code=1)
    assert [bool(one["problem"]) for one in found] == [False, True]
    assert found[1]["energy"] is None


def test_inpaint(printed, salt, tmp_path):
    found = printed("inpaint", salt, "--guest", "Li", "--count", "1", "--samples", "2", "--out", tmp_path / "out")
    assert found[0]["above_best"] == 0 and found[0]["atoms"] == 3 and Path(found[0]["file"]).is_file()


def test_analyse(printed, salt, tmp_path):
    found = printed("analyse", salt, "--guest", "Li", "--out", tmp_path / "out")
    assert found["coordination"] and found["hops"] and found["hops"][0]["length"] == pytest.approx(3.1)
    assert found["voids"][0]["radius"] > 0.5


def test_data(printed, tmp_path, licoo2, lisi):
    folder = tmp_path / "cifs"
    folder.mkdir()
    for crystal in (licoo2, lisi):
        crystal.to_pymatgen().to(filename=str(folder / f"{crystal.formula}.cif"))
    found = printed("data", folder, "--out", tmp_path / "data.parquet", "--max-e-above-hull", "9", "--val", "0.5")
    assert found["crystals"] == found["read"] == sum(found["splits"].values()) == 2


def test_every_command_with_the_option_has_a_schema(call):
    code, out, _ = call("schema")
    assert code == 0 and out.split("\n")[:-1] == list(RECORDS)
    for name in RECORDS:
        code, out, _ = call("schema", *name.split())
        assert code == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(out))


def test_an_unknown_schema_is_an_error_that_names_those_there_are(call):
    code, _, err = call("schema", "plot")
    assert code == 2 and "results" in err
