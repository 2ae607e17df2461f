"""The driver against the single-process pipeline, killed at random moments, stopped, and run twice at once."""

import fcntl
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from model.potentials.chgnet.potential import CHGNetPotential
from model.thermodynamics.reference import packaged_reference
from search.config import SearchConfig
from search.planning.prepare import load_judge_reference, load_reference
from search.reporting.records import schema
from search.running.pipeline import load_stages, search_here
from search.storage.results import ResultStore, load_results
from search.storage.rows import unpack_or_raise

TIMES = ["seconds_generate", "seconds_relax", "seconds_analyse", "seconds_judge"]
CONFIG = {
    "name": "tiny",
    "seed": 3,
    "compositions": {"cells": [{"Li": 2, "Si": 1}, {"Li": 3, "Si": 1}, {"Li": 3, "Si": 2}]},
    "frameworks": {"guests": ["Li"]},
    "sampling": {name: {"kind": "heun", "steps": 4} for name in ("diffusion", "inpainting")},
    "relaxation": {"max_steps": 12},
    "policy": {"rounds": 4, "candidates_per_round": 8, "samples": 2, "batch": 2},
    "resources": {"relax_actors": 1},
}


def start(folder: Path, **changes: object) -> subprocess.Popen:
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, **changes}))
    command = [sys.executable, "-m", "search.cli", "search", str(config), "--run", str(folder / "run")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def parts(folder: Path) -> int:
    return len(list((folder / "run" / "candidates").glob("[!_]*.parquet")))


def wait_for_parts(process: subprocess.Popen, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while parts(folder) < count and process.poll() is None:
        assert time.monotonic() < deadline, "the search stores nothing"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The same search, task after task in this process: the oracle."""
    config = SearchConfig.model_validate(CONFIG)
    reference = load_reference(config)
    folder = tmp_path_factory.mktemp("undisturbed")
    for _ in search_here(config, reference, ResultStore(folder), load_stages(config, reference)):
        pass
    return load_results(folder, structures=False)


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Everything but wall times, in a fixed order."""
    return frame.drop(columns=TIMES).sort_values("candidate", ignore_index=True)


def assert_same_results(folder: Path, expected: pd.DataFrame) -> None:
    found = comparable(load_results(folder / "run", structures=False))
    assert found["candidate"].is_unique
    pd.testing.assert_frame_equal(found, comparable(expected))


def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path, undisturbed):
    moments = random.Random(7)
    for stored in (2, 8):
        process = start(tmp_path)
        wait_for_parts(process, tmp_path, stored)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert parts(tmp_path) > 0
    process = start(tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_results(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_search_with_a_judge_ends_as_in_one_process_and_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTGUIDE_CACHE", str(tmp_path / "cache"))
    content = {**CONFIG, "judge": {"potential": "chgnet-r2scan", "lowest": 2}}
    config = SearchConfig.model_validate(content)
    reference, judge_reference = load_reference(config), load_judge_reference(config)
    assert judge_reference.potential == "chgnet-r2scan"
    stages = load_stages(config, reference, judge_reference)
    for _ in search_here(config, reference, ResultStore(tmp_path / "here"), stages):
        pass
    expected = load_results(tmp_path / "here", structures=False)
    process = start(tmp_path, judge=content["judge"])
    wait_for_parts(process, tmp_path, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(tmp_path, judge=content["judge"])
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_results(tmp_path, expected)
    judged = expected[expected["e_d_judge"].notna()]
    assert len(judged) >= 4 and set(judged["judge"]) == {"chgnet-r2scan"}
    assert (judged["e_d_judge"] <= judged["e_d_judge_first"] + 1e-9).all()
    assert expected["e_d_believed"].is_monotonic_increasing or expected["e_d_believed"].isna().any()


def test_ctrl_c_keeps_what_is_stored_and_says_how_to_resume(tmp_path):
    process = start(tmp_path, policy={**CONFIG["policy"], "rounds": 200})
    wait_for_parts(process, tmp_path, 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Resume with: hostguide search" in output
    stored = load_results(tmp_path / "run", structures=False)
    assert 0 < len(stored) < 400 and f"{len(stored)} candidates are stored" in output


@pytest.mark.slow
def test_a_search_without_yaml_ends_in_time_and_is_resumed_by_its_folder(tmp_path):
    command = [sys.executable, "-m", "search.cli", "search"]
    options = ["--guest", "Li", "--max-atoms", "4", "--minutes", "1", "--run", str(tmp_path / "run"), "--json"]
    began = time.monotonic()
    done = subprocess.run([*command, "Li3Si", *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 75  # also on a machine that is busy
    assert "formulas: [Li3Si]" in done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, schema("search"))
    assert not found["finished"] and found["reason"] == "1 minutes are over"
    more = [str(tmp_path / "run"), "--minutes", "0.3"]
    again = subprocess.run([*command, *more], capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0 and "Stopped after 0.3 minutes" in again.stdout, again.stdout + again.stderr


def test_a_second_driver_in_the_same_folder_is_refused(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with (run / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = start(tmp_path)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "another process is running a search in" in output


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "seed": 4}))
    process = start(tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "seed: was 4, is 3" in output


def test_stored_energies_are_those_of_the_stored_structures(undisturbed):
    judged = undisturbed[undisturbed["e_d"].notna()]
    assert len(judged) >= 10
    evaluations = CHGNetPotential().evaluate([unpack_or_raise(value) for value in judged["final"]])
    np.testing.assert_allclose([one.energy for one in evaluations], judged["energy"], atol=1e-4)


def test_stored_e_d_agrees_with_pymatgens_phase_diagram(undisturbed):
    phases = packaged_reference().of_system(["Li", "Si"])
    entries = [
        PDEntry(Composition(phase.formula), phase.energy_per_atom * Composition(phase.formula).num_atoms)
        for phase in phases.itertuples()
    ]
    diagram = PhaseDiagram(entries)
    for row in undisturbed[undisturbed["e_d"].notna()].to_dict("records"):
        composition = Composition(row["formula"])
        entry = PDEntry(composition, row["energy"] * composition.num_atoms)
        assert row["e_d"] == pytest.approx(diagram.get_decomp_and_e_above_hull(entry, allow_negative=True)[1], abs=1e-6)
        assert sum(row["products"].values()) == pytest.approx(1)


def test_every_candidate_knows_where_it_comes_from(undisturbed):
    filled = undisturbed[undisturbed["role"] == "from_host"]
    assert len(filled)
    frameworks = {
        record["framework"]: row for row in undisturbed.to_dict("records") for record in _list(row["frameworks"])
    }
    for row in filled.to_dict("records"):
        if row["framework"].startswith("known-"):  # a host from the library of known phases
            assert pd.isna(row["parent"])
        else:
            assert frameworks[row["framework"]]["candidate"] == row["parent"]
        cell, guests = Composition(row["cell_formula"]), Composition(dict.fromkeys(row["guests"], 1))
        assert cell["Si"] > 0 and list(guests) == [Element("Li")]  # the host is silicon


def _list(value: object) -> list:
    return [] if value is None or isinstance(value, float) else list(value)
