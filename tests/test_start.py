"""The start of the program: beside a user's modules of the same names, and without libraries that it does not need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from search.storage.results import load_results

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, "-c", "from hostguide_start import main; main()"]  # as the installed script does
CONFIG = {
    "name": "tiny",
    "compositions": {"cells": [{"Li": 3, "Si": 1}]},
    "generators": ["random"],
    "relaxation": {"max_steps": 3},
    "policy": {"rounds": 1, "candidates_per_round": 2, "batch": 1},
    "resources": {"relax_actors": 1},
}


@pytest.fixture
def folder(tmp_path):
    """A working folder with modules of the user's, each of which fails if it is imported."""
    for name in ("model.py", "search/__init__.py", "actors/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('imported {name}')\n")
    (tmp_path / "hostguide").mkdir()  # a clone of the repository
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def run(command, folder, path):
    """Run a command in a folder, with these folders on PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_version_is_shown_beside_modules_of_the_same_names(folder):
    done = run([*PROGRAM, "--version"], folder, [folder, ROOT])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_search_runs_beside_modules_of_the_same_names(folder):
    done = run([*PROGRAM, "search", "tiny.yaml", "--run", "run"], folder, [folder, ROOT])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(load_results(folder / "run", structures=False)) == 2


def test_a_module_that_is_imported_already_is_named(tmp_path):
    (tmp_path / "model.py").write_text("weights = 'mine'\n")
    code = "import model; import hostguide_start; hostguide_start.use_own_packages()"
    done = run([sys.executable, "-c", code], tmp_path, [ROOT])
    assert done.returncode == 1
    assert f"{tmp_path / 'model.py'} was imported as 'model'" in done.stderr


IMPORTED = """
import sys
from hostguide_start import main
sys.argv = ["hostguide", *sys.argv[1:]]
try:
    main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules})
"""
SLOW = {
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "pymatgen",
    "ase",
    "scipy",
    "ray",
    "matplotlib",
    "pydantic",
    "e3nn",
    "chgnet",
}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_first_answers_need_no_slow_library(tmp_path, option):
    done = run([sys.executable, "-c", IMPORTED, option], tmp_path, [ROOT])
    assert done.returncode == 0, done.stderr
    assert not SLOW & set(done.stdout.splitlines()[-1].split())


def test_results_are_shown_without_pytorch(small_run):
    done = run([sys.executable, "-c", IMPORTED, "results", str(small_run)], small_run, [ROOT])
    assert done.returncode == 0, done.stderr
    assert not {"torch", "ray", "matplotlib", "e3nn"} & set(done.stdout.splitlines()[-1].split())


def test_analysing_and_relaxing_need_no_e3nn(tmp_path):
    code = "import sys, model.stages; print('e3nn' in sys.modules)"
    assert run([sys.executable, "-c", code], tmp_path, [ROOT]).stdout.strip() == "False"
