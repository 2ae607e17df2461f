"""The same on several Ray nodes: processes are really killed, calls really hang, a node really goes, the driver dies.

Stages do no physics (tests/support/simulated.py); driver, pools, store and campaign are the real ones.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pandas as pd
import psutil
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from search.config_file import check_config
from search.planning.prepare import load_reference
from search.running.pipeline import search_here
from search.storage.results import ResultStore, load_results
from tests.support.data import ROOT
from tests.support.simulated import Stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TIMES = ["seconds_generate", "seconds_relax", "seconds_analyse"]
CONFIG = {
    "name": "chaos",
    "compositions": {"system": "Li-Si", "max_atoms": 4},
    "generators": ["diffusion", "inpainting"],
    "frameworks": {"guests": ["Li"]},
    "lattices": {"volume_per_atom": 16.0},
    "policy": {"rounds": 12, "candidates_per_round": 15, "new_share": 0.6, "samples": 2, "batch": 3},
}
KILLS = 20


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    config = check_config(CONFIG, source="test")
    folder = tmp_path_factory.mktemp("undisturbed")
    for _ in search_here(config, load_reference(config), ResultStore(folder), Stages()):
        pass
    return comparable(load_results(folder, structures=False))


@pytest.fixture
def cluster(monkeypatch):
    """A head without cores, and two nodes with two each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=2)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def little_memory(monkeypatch):
    """Ray's workers may take a few GB only; the cluster must start after this."""
    memory = psutil.virtual_memory()
    if memory.available < 8e9:
        pytest.skip(f"this machine has {memory.available / 1e9:.1f} GB free; 8 are needed")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{1 - (memory.available - 6e9) / memory.total:.3f}")


def comparable(frame):
    return frame.drop(columns=TIMES).sort_values("candidate", ignore_index=True)


def assert_whole(folder, expected):
    found = comparable(load_results(folder / "run", structures=False))
    assert found["candidate"].is_unique
    pd.testing.assert_frame_equal(found, expected)


def start(folder, cluster, seconds=60.0):
    """Start or resume the search of this folder on the cluster."""
    (folder / "faults").mkdir(exist_ok=True)
    config = folder / "chaos.yaml"
    resources = {"address": cluster.address, "generate_actors": 2, "task_seconds": seconds}
    config.write_text(yaml.safe_dump({**CONFIG, "resources": resources}))
    command = [sys.executable, "-m", "tests.support.chaos_search", config, folder / "run", folder / "faults"]
    with (folder / "out").open("a") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)


def finish(process, folder):
    """Wait for the end and return what the search said."""
    assert process.wait(timeout=1800) == 0, (folder / "out").read_text()
    return (folder / "out").read_text()


def parts(folder):
    return {path.stem for path in (folder / "run" / "candidates").glob("[!_]*.parquet")}


def failures(folder):
    return (folder / "run" / "log.jsonl").read_text().split('"event": "failed"')[1:]


def recounts(folder):
    return (folder / "run" / "log.jsonl").read_text().split("the cluster now has")[1:]


def started_waits(folder):
    return list((folder / "faults").glob("done-relax-wait-*"))


def wait_for(process, folder, count, what=parts):
    deadline = time.monotonic() + 900
    while len(what(folder)) < count and process.poll() is None:
        assert time.monotonic() < deadline, (folder / "out").read_text()
        time.sleep(0.02)


def causes(folder):
    events = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return Counter(event["cause"] for event in events if event["event"] == "failed")


def test_actors_that_die_hang_and_raise_and_a_node_that_goes(tmp_path, cluster, undisturbed):
    process = start(tmp_path, cluster, seconds=30.0)
    wait_for(process, tmp_path, 2)
    orders = [
        *("relax-kill-1", "relax-exit-2", "relax-hang-3", "relax-unpicklable-4", "relax-error-5"),
        *("generate-kill-1", "generate-hang-2", "analyse-kill-1", "analyse-unpicklable-2"),
    ]
    for order in orders:
        (tmp_path / "faults" / order).touch()
    wait_for(process, tmp_path, len(orders), failures)
    waits = [f"relax-wait-{number}" for number in range(4)]  # all relaxers are busy when a node goes, and long enough
    for order in waits:  # for the driver to count the CPUs again
        (tmp_path / "faults" / order).touch()
    wait_for(process, tmp_path, len(waits), started_waits)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    wait_for(process, tmp_path, 1, recounts)
    cluster.add_node(num_cpus=2)
    said = finish(process, tmp_path)
    assert_whole(tmp_path, undisturbed)
    assert len(list((tmp_path / "faults").glob("done-*"))) == len(orders) + len(waits)
    found = causes(tmp_path)
    assert found["hung"] >= 2 and found["crashed"] >= 3 and found["error"] >= 3 and found["node"] >= 1
    assert "retries:" in said and "lost" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert not summary["failed"]
    assert any("2 CPUs" in note for note in summary["notes"])  # while the node was gone


def test_a_relaxer_that_takes_all_memory(tmp_path, little_memory, cluster, undisturbed):
    process = start(tmp_path, cluster)
    wait_for(process, tmp_path, 2)
    (tmp_path / "faults" / "relax-memory-1").touch()
    said = finish(process, tmp_path)
    assert_whole(tmp_path, undisturbed)
    assert causes(tmp_path)["oom"] >= 1
    assert " oom" in said and "lost" in said


def test_the_driver_killed_at_random_moments(tmp_path, cluster, undisturbed):
    moments, kills, reported = random.Random(11), 0, set()
    while kills < KILLS:
        process = start(tmp_path, cluster)
        wait_for(process, tmp_path, len(reported) + moments.choice([0, 1, 2]))
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert reported <= parts(tmp_path)
        reported = parts(tmp_path)
        if reported:
            load_results(tmp_path / "run", structures=False)  # whole, whenever it is read
    assert kills == KILLS, "the search was over too soon"
    finish(start(tmp_path, cluster), tmp_path)
    assert_whole(tmp_path, undisturbed)


def test_two_drivers_on_one_run(tmp_path, cluster, undisturbed):
    first = start(tmp_path, cluster)
    wait_for(first, tmp_path, 1)
    first.send_signal(signal.SIGSTOP)  # it must not finish before the second one has come up
    second = start(tmp_path, cluster)
    assert second.wait(timeout=600) == 1
    first.send_signal(signal.SIGCONT)
    assert "another process is running a search in" in (tmp_path / "out").read_text()
    finish(first, tmp_path)
    assert_whole(tmp_path, undisturbed)


def test_a_node_that_joins_is_used(tmp_path, cluster, undisturbed):
    process = start(tmp_path, cluster)
    wait_for(process, tmp_path, 1)
    (tmp_path / "faults" / "relax-wait-1").touch()  # the driver counts every ten seconds: there must be so many
    cluster.add_node(num_cpus=3)
    finish(process, tmp_path)
    assert_whole(tmp_path, undisturbed)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert any("7 CPUs" in note for note in summary["notes"])
