"""What commands print with `--json`: valid under its schema, and nothing else is on standard output."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ase.io
import jsonschema
import pytest
import typer

from search.cli import app
from search.reporting.records import RECORDS
from search.storage.status import write_status

TESTS = Path(__file__).parents[2]
EMT = "{calculator: ase.calculators.emt.EMT, energies: own, name: emt}"


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


def test_inpaint_with_a_range_of_counts(printed, host_file, tmp_path):
    options = ["--guest", "Li", "--count", "0:2", "--samples", "2", "--out", tmp_path / "out"]
    found = printed("inpaint", host_file, *options)
    empty, half = found[:2]
    assert [one["guests"] for one in found] == list(range(len(found))) and empty["formula"] == "CoO2"
    assert empty["voltage"] is empty["step_voltage"] is None and empty["host_kept"]
    assert half["voltage"] == pytest.approx(half["step_voltage"]) and half["voltage"] > 3
    assert half["insertion_energy"] == pytest.approx(-half["voltage"])
    assert all(Path(one["file"]).is_file() for one in found)


def test_verify(printed, salt, tmp_path):
    (found,) = printed("verify", salt, "--out", tmp_path / "out")
    assert found["verdict"].startswith(found["grade"]) and found["lowest_frequency"] is None


def test_reference_hull(printed):
    found = printed("reference hull", "Au-Cu", "--potential", EMT)
    assert {"Au", "Cu"} <= {one["formula"] for one in found if one["above_hull"] < 1e-6}


def test_hosts_of_a_screen(printed, host_file, tmp_path):
    (tmp_path / "broken.cif").write_text("nothing")
    found = printed("screen", host_file, tmp_path / "broken.cif", "--guest", "Li", "--guest", "Mg", "--check")
    assert found["pairs"] == 3 and found["run"] is None and found["electrodes"] == []
    assert [(one["formula"], bool(one["problem"])) for one in found["hosts"]] == [(None, True), ("CoO2", False)]


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


# --- no command is forgotten -------------------------------------------------------------------------------------


def leaves(command, path=()) -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """All commands, by what one types."""
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from leaves(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


COMMANDS = dict(leaves(typer.main.get_command(app)))
SHOWING = ("search.commands.", "search.reporting.", "search.studies.")


@cache
def source(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def makes_table(module: str, name: str, seen: set[tuple[str, str]]) -> bool:
    """Whether a function makes a table for the terminal, by itself or by the functions that it names."""
    if (module, name) in seen or not module.startswith(SHOWING):
        return False
    seen.add((module, name))
    imports = [node for node in ast.walk(source(module)) if isinstance(node, ast.ImportFrom)]
    origin = {alias.asname or alias.name: (node.module, alias.name) for node in imports for alias in node.names}
    here = {node.name: node for node in source(module).body if isinstance(node, ast.FunctionDef)}
    if name not in here:
        return False
    named = {node.id for node in ast.walk(here[name]) if isinstance(node, ast.Name)}
    if any(origin.get(one) == ("rich.table", "Table") for one in named):
        return True
    return any(makes_table(*origin.get(one, (module, one)), seen) for one in named)


def test_every_command_that_prints_a_table_has_the_option():
    tables = {
        name
        for name, command in COMMANDS.items()
        if makes_table(inspect.unwrap(command.callback).__module__, inspect.unwrap(command.callback).__name__, set())
    }
    assert {"results", "relax", "judge", "screen", "benchmark csp"} <= tables
    assert tables <= set(RECORDS), "give it --json, and a record in search/reporting/records.py"


def test_every_command_with_the_option_has_a_record():
    having = {name for name, one in COMMANDS.items() if any("--json" in part.opts for part in one.params)}
    assert having == set(RECORDS)
    files = {
        name for name, one in COMMANDS.items() for part in one.params if "--json" in part.opts and not part.is_flag
    }
    assert files == {name for name in RECORDS if name.startswith("benchmark")}


@pytest.mark.parametrize("name", RECORDS)
def test_what_every_command_prints_is_validated_by_some_test(name):
    texts = [path.read_text(encoding="utf-8") for path in (TESTS / "search").rglob("test_*.py")]
    assert any(f'printed("{name}"' in text or f'schema("{name}")' in text for text in texts)


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
