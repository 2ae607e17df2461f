import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer
import yaml
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from search import commands as commands_package
from search.cli import add_commands, app
from search.storage.results import ResultStore
from search.storage.rows import StoredCrystal

ROOT = Path(__file__).resolve().parents[1]
LI_SI = ROOT / "configs" / "li-si.yaml"


def commands(command=None, path=()):
    """Every command with its path of names, groups included."""
    command = command or typer.main.get_command(app)
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


@pytest.fixture
def run(tmp_path, cobaltate, lisi, make_config):
    """A finished run of Li-Si with three crystals, one of them twice, and a failure."""
    folder = tmp_path / "run"
    common = {"formula": "LiSi", "n_atoms": 2, "frameworks": [], "products": {"LiSi": 1.0}, "status": "relaxed"}
    rows = []
    for name, scale, e_d, role in (("a", 1.0, -0.02, "new"), ("b", 1.001, -0.015, "from_host"), ("c", 1.1, 0.2, "new")):
        final = StoredCrystal.of(lisi.replace(lattice=lisi.lattice * scale))
        columns = {"candidate": name, "initial": StoredCrystal.of(lisi), "final": final, "e_d": e_d, "role": role}
        group = {"space_group": "Pm-3m", "space_group_number": 221}
        rows.append(replace(cobaltate["rows"][0], **common, **columns, **group, energy=e_d - 3.0))
    rows.append(replace(cobaltate["rows"][5], candidate="d"))
    ResultStore(folder).append("task", rows)
    (folder / "config.yaml").write_text(yaml.safe_dump(make_config().model_dump(mode="json")))
    return folder


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(commands()), ids=lambda path: " ".join(path) or "hostguide")
def test_every_command_has_help(path):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output
    assert "--help" in result.output


def test_every_command_and_option_says_what_it_is_for():
    def check(command):
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("help", "seed"):
                assert parameter.help, f"{command.name} --{parameter.name}"
        for child in getattr(command, "commands", {}).values():
            check(child)

    check(typer.main.get_command(app))


def test_shells_can_be_taught_to_complete(call):
    code, out, _ = call("--help")
    assert code == 0 and "--install-completion" in out


def test_the_version_is_that_of_the_package(call):
    code, out, _ = call("--version")
    assert (code, out.strip()) == (0, version("hostguide"))


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in map(" ".join, commands()) if name and f"`hostguide {name}" not in readme]
    assert not missing


def test_the_installed_program_starts_fast_and_from_anywhere(tmp_path):
    program = Path(sys.executable).parent / "hostguide"
    done = subprocess.run([program, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "inpaint" in done.stdout
    assert not done.stderr
    code = "import sys; import search.cli; assert not {'torch', 'ray', 'pymatgen', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_new_command_is_one_file(tmp_path, monkeypatch):
    """The example of CONTRIBUTING.md, in one more folder of `search.commands`, becomes a command with help."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (tmp_path / "density.py").write_text(example)
    monkeypatch.setattr(commands_package, "__path__", [*commands_package.__path__, str(tmp_path)])
    extended = typer.Typer()
    add_commands(extended, commands_package)
    monkeypatch.delitem(sys.modules, "search.commands.density")
    before, after = (set(typer.main.get_command(one).commands) for one in (app, extended))
    assert after == before | {"density"}
    assert "Print the density of a crystal" in CliRunner().invoke(extended, ["density", "--help"]).output
    Structure(Lattice.cubic(3.0), ["Fe"], [[0, 0, 0]]).to(tmp_path / "iron.cif")
    assert CliRunner().invoke(extended, ["density", str(tmp_path / "iron.cif")]).output == "3.43\n"


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["search", "validate", "train"])
def test_a_missing_configuration_is_an_error_of_one_line(call, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(command, "nowhere.yaml")
    assert code == 2
    assert err.startswith("hostguide: nowhere.yaml does not exist")
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize("command", ["search", "validate"])
def test_a_bad_configuration_is_told_field_by_field(call, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("name: bad\nseed: -1\ncompositions: {system: Li-Si}\nrelaxation: {fmaxx: 1}\n")
    code, _, err = call(command, "bad.yaml")
    assert code == 2
    assert "bad.yaml:\n  seed: " in err
    assert "\n  relaxation.fmaxx: unknown field" in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(("text", "word"), [("steps: many\n", "steps"), ("- 1\n", "dictionary"), ("a: [\n", "line 2")])
def test_a_bad_training_file_is_named(call, tmp_path, text, word):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    code, _, err = call("train", path)
    assert code == 2
    assert err.startswith(f"hostguide: {path}: ")
    assert word in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command"),
        (["search"], "Missing argument"),
        (["results", "x", "--top", "0"], "--top"),
        (["inpaint", "x.cif", "--guest", "Li"], "--count"),
        (["inpaint", "x.cif", "--guest", "Li", "--count", "many"], "--count"),
        (["inpaint", "x.cif", "--guest", "Li", "--count", "1", "--samples", "0"], "--samples"),
        (["results", "nowhere", "--role", "relaxed"], "'relaxed' is not one of 'new', 'from_host'"),
        (["plot", "nowhere", "--format", "gif"], "'gif' is not one of 'png', 'svg', 'pdf'"),
        (["dft", "write", "a.cif", "--out", "b", "--set", "mp-lda"], "'mp-lda' is not one of 'mp-gga', 'mp-r2scan'"),
        (["results", "nowhere"], "nowhere contains no results"),
        (["plot", "nowhere"], "nowhere contains no results"),
        (["reference", "show", "Li-Xx"], "unknown element 'Xx'"),
        (["reference", "build", "nowhere.parquet", "out.parquet"], "nowhere.parquet does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_exit_with_two_and_say_what_is_wrong(call, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert code == 2
    assert words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_person_who_interrupts_sees_no_traceback(call, monkeypatch):
    def interrupted(system):
        raise KeyboardInterrupt

    monkeypatch.setattr("search.reporting.tables.reference_table", interrupted)
    code, _, err = call("reference", "show", "Li-Si")
    assert code == 130
    assert "Traceback" not in err


def test_a_full_disk_is_no_traceback(call, monkeypatch):
    def full(system):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.reporting.tables.reference_table", full)
    code, _, err = call("reference", "show", "Li-Si")
    assert code == 2
    assert "No space left on device" in err


# --- validate and reference ---------------------------------------------------------------------------------------


def test_validate_says_what_a_search_will_do(call):
    code, out, err = call("validate", LI_SI)
    assert code == 0, err
    assert "li-si: Li-Si, seed 0" in out
    assert "cells of 3 to 12 atoms:" in out
    for word in (
        "Li2Si ",
        "Li3Si ",
        "Li9Si ",
        "V0",
        "guests: Li",
        "lattices: cP",
        "evaluations of the score model per batch",
    ):
        assert word in out
    assert "LiSi " not in out  # more Li than Si
    assert "potential: chgnet-0.3.0, energies of MP2020-corrected PBE (corrections: MP2020, learned)" in out
    assert "reference: Materials Project phases (chgnet-0.3.0, 2025.02.12)" in out
    assert "on the hull: " in out
    assert "estimated time on one core: " in out


def test_reference_show_lists_phases_and_writes_their_crystals(call, tmp_path):
    code, out, _ = call("reference", "show", "Li-Si", "--out", tmp_path / "phases")
    assert code == 0
    assert (tmp_path / "phases" / "Si_mp-149.cif").is_file() and "crystals of the library" in out
    for formula in ("Li15Si4", "Li21Si5", "Li2Si"):
        assert formula in out


# --- results ------------------------------------------------------------------------------------------------------


def test_results_shows_distinct_crystals_and_writes_them(call, run):
    code, out, _ = call("results", run)
    assert code == 0
    assert f"CIFs of these 2 crystals: {run / 'best'}" in out
    names = sorted(path.name for path in (run / "best").iterdir())
    assert names == ["001_LiSi_Pm-3m_-20meV_a.cif", "002_LiSi_Pm-3m_+200meV_c.cif"]
    assert "-20.0" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--all"], ["a", "b", "c"]),
        (["--top", "1"], ["a"]),
        (["--role", "from_host"], ["b"]),
        (["--formula", "LiSi", "--all", "--top", "2"], ["a", "b"]),
    ],
    ids=" ".join,
)
def test_results_can_be_narrowed(call, run, tmp_path, options, expected):
    code, _, _ = call("results", run, *options, "--cif", tmp_path / "cifs")
    assert code == 0
    assert [path.stem.split("_")[-1] for path in sorted((tmp_path / "cifs").iterdir())] == expected
    assert not (run / "best").exists()


def test_results_that_match_nothing_say_so(call, run):
    code, out, _ = call("results", run, "--formula", "Li9Si")
    assert (code, out) == (0, "No relaxed crystal matches.\n")
    code, _, err = call("results", run, "--formula", "LiFoo")
    assert (code, err) == (2, "hostguide: cannot read the formula 'LiFoo': write it like 'Li5Si2'\n")


@pytest.mark.parametrize(
    ("command", "is_folder"), [("report", True), ("plot", False), ("export", False), ("results", False)]
)
def test_a_place_for_results_that_is_taken_is_named_before_any_work(call, run, tmp_path, command, is_folder):
    taken = tmp_path / "taken"
    taken.mkdir() if is_folder else taken.write_text("mine")
    code, _, err = call(command, run, "--cif" if command == "results" else "--out", taken)
    assert code == 2
    assert ("is a directory" if is_folder else "is a file") in " ".join(err.replace("│", " ").split())


PICTURES = ("hull.png", "progress.png", "symmetry.png", "changes.png", "best.png")


def test_plot_draws_hull_and_best_crystal_among_others(call, run):
    code, out, err = call("plot", run)
    assert code == 0, err
    assert out.split() == [str(run / "plots" / name) for name in PICTURES]
    for path in out.split():
        assert Path(path).read_bytes().startswith(b"\x89PNG")


# --- inpaint ------------------------------------------------------------------------------------------------------


def test_inpaint_fills_a_host(call, host_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("inpaint", host_file, "--guest", "Li", "--count", 1, "--samples", 4)
    assert code == 0, err
    assert "placing 1 Li, 4 times" in out
    paths = sorted(Path("CoO2-Li1").iterdir())
    assert paths
    for path in paths:
        structure = Structure.from_file(path)
        assert structure.composition.as_dict() == {"Li": 1, "Co": 1, "O": 2}
        assert path.name in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--guest", "Li", "--count", "1", "--guest", "Li", "--count", "2"], "Li was given more than once"),
        (["--guest", "Li", "--guest", "Na", "--count", "1"], "--guest was given 2 times and --count 1 times"),
        (["--guest", "Xx", "--count", "1"], "'Xx' is not an element"),
        (["--guest", "Li", "--count", "0"], "--count '0' is no number of atoms: give 1 or more"),
        (["--guest", "Li", "--count", "1", "--weights", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_inpaint_refuses_what_it_cannot_do(call, host_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("inpaint", host_file, *arguments)
    assert code == 2
    assert words in err
    assert not list(tmp_path.iterdir())


def test_inpaint_refuses_a_missing_file_and_partial_occupancy(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("inpaint", "nowhere.cif", "--guest", "Li", "--count", 1)
    assert (code, err) == (2, "hostguide: nowhere.cif does not exist\n")
    Structure(Lattice.cubic(4.2), [{"K": 0.5, "Na": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to("half.cif")
    code, _, err = call("inpaint", "half.cif", "--guest", "Li", "--count", 1)
    assert code == 2
    assert "partially occupied" in err
    assert "Order the structure first" in err
