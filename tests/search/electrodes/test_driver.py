"""A screen on Ray: hosts that kill their process, and a screen that is killed itself."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from search.electrodes.store import load_rows
from tests.support import electrodes

COMPARED = ["task", "host", "guest", "count", "status", "reason", "energy", "x"]


def make_hosts(folder: Path, count: int, names: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    for number, name in enumerate([*names, *(f"host{i:03d}" for i in range(count))]):
        structure = Structure(
            Lattice.cubic(3 + 0.001 * number), ["Co", "O", "O"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]
        )
        structure.to(filename=str(folder / f"{name}.cif"))
    (folder / "broken.cif").write_text("data_x\n_cell_length_a 3\nloop_\n")
    return folder


def start(hosts: Path, run: Path) -> subprocess.Popen:
    command = [sys.executable, "-P", electrodes.__file__, str(hosts), str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(hosts: Path, run: Path) -> pd.DataFrame:
    process = start(hosts, run)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return load_rows(run)


def stored(run: Path) -> int:
    return len(list((run / "candidates").glob("[!_]*.parquet")))


def kill_after(hosts: Path, run: Path, parts: int, moments: random.Random) -> None:
    process = start(hosts, run)
    deadline = time.monotonic() + 240
    while stored(run) < parts and process.poll() is None:
        assert time.monotonic() < deadline, "the screen stores nothing"
        time.sleep(0.02)
    time.sleep(moments.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_hosts_that_fail_are_rows_and_a_killed_screen_ends_with_the_same_rows(tmp_path):
    hosts = make_hosts(tmp_path / "hosts", 12, ("killer", "faulty"))
    run = tmp_path / "killed"
    kill_after(hosts, run, 3, random.Random(1))
    before = stored(run)
    killed = finish(hosts, run)
    undisturbed = finish(hosts, tmp_path / "undisturbed")
    assert 3 <= before < 29
    pd.testing.assert_frame_equal(killed[COMPARED], undisturbed[COMPARED])
    assert not killed.duplicated(["host", "guest", "count"]).any()
    reasons = killed[killed["status"] == "failed"].groupby("host")["reason"].agg(list)
    assert len(reasons["killer"]) == len(reasons["faulty"]) == 2 and len(reasons["broken"]) == 1
    assert all(reason.startswith("crashed") for reason in reasons["killer"])
    assert all("this host fails" in reason for reason in reasons["faulty"])
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "stored" for line in log) >= 29 - before


@pytest.mark.slow
def test_five_hundred_hosts_killed_ten_times_end_with_the_same_rows(tmp_path):
    hosts, moments = make_hosts(tmp_path / "hosts", 500), random.Random(7)
    run = tmp_path / "killed"
    for number in range(10):
        kill_after(hosts, run, 60 + 90 * number, moments)
    killed, undisturbed = finish(hosts, run), finish(hosts, tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(killed[COMPARED], undisturbed[COMPARED])
    assert len(killed) == 500 * 2 * 3 + 1
