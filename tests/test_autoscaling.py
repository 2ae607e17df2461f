"""A search on a cluster that grows when the search asks for machines, loses one, and shrinks when it has ended.

The cluster is Ray's own fake one: its autoscaler starts Ray nodes on this machine instead of machines in a cloud.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from search.config_file import check_config
from search.planning.prepare import load_reference
from search.running.pipeline import search_here
from search.storage.results import ResultStore, load_results
from tests.support.configs import per_round
from tests.support.data import ROOT
from tests.support.simulated import Stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SEARCH = {
    "name": "growing",
    "compositions": {"system": "Li-Si", "max_atoms": 4},
    "generators": ["diffusion", "inpainting"],
    "frameworks": {"guests": ["Li"]},
    "lattices": {"volume_per_atom": 16.0},
    "policy": {"rounds": 4, **per_round(9, 6), "samples": 2, "batch": 3},
}
RELAXERS = 2


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture
def cluster(monkeypatch):
    """Address and folder of a head without cores that may start up to three workers with one each.

    It runs in front, so that no `ray stop` is needed, which would end every Ray on this machine.
    """
    folder = Path(tempfile.mkdtemp(prefix="hg-", dir="/tmp"))  # short, for Ray's sockets
    address = f"{get_node_ip_address()}:{free_port()}"
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {
            "resources": {"CPU": 1, "object_store_memory": 10**8},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
    }
    config = {
        "cluster_name": "growing",
        "max_workers": 3,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",  # by its own name, Ray looks for defaults that its package lacks
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,  # nobody logs in to a node: one that fails is replaced
            "disable_launch_config_check": True,
        },
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "auth": {}, "docker": {}, "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
        "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [], "file_mounts": {},
        "cluster_synced_files": [], "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
    }  # fmt: skip
    (folder / "cluster.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",  # as in every cluster file that can grow
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--num-cpus=0"]
    command += [f"--port={address.partition(':')[2]}", f"--temp-dir={folder}/ray", "--include-dashboard=false"]
    command += ["--object-store-memory=100000000", f"--autoscaling-config={folder}/cluster.yaml"]
    command += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: len(nodes(folder)) == 1, 120, folder / "log")
        yield address, folder
    finally:
        head.terminate()
        head.wait(timeout=60)
        left = of_cluster(folder)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)  # Ray's last writers may still be at it


def of_cluster(folder):
    """Processes of the cluster whose folder this is, which the lost nodes' may outlive."""
    found = psutil.process_iter(["cmdline", "name", "status", "create_time"])
    return [process for process in found if any(str(folder) in word for word in process.info["cmdline"] or ())]


def nodes(folder):
    """Ray's first process on each node, the head's first."""
    found = [process for process in of_cluster(folder) if process.info["name"] == "raylet"]
    alive = [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]
    return sorted(alive, key=lambda process: process.info["create_time"])


def wait_until(reached, seconds, log):
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def comparable(frame):
    times = ["seconds_generate", "seconds_relax", "seconds_analyse"]
    return frame.drop(columns=times).sort_values("candidate", ignore_index=True)


def test_machines_come_when_asked_for_and_are_lost_and_go(cluster, tmp_path, request):
    address, folder = cluster
    log = folder / "log"
    undisturbed = check_config(SEARCH, source="test")
    for _ in search_here(undisturbed, load_reference(undisturbed), ResultStore(tmp_path / "undisturbed"), Stages()):
        pass
    resources = {"address": address, "relax_actors": RELAXERS, "generate_actors": 1}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({**SEARCH, "resources": resources}))
    faults, out = tmp_path / "faults", tmp_path / "out"
    faults.mkdir()
    for number in range(6 * RELAXERS):  # so long that the loss is in the middle
        (faults / f"relax-wait-{number}").touch()
    command = [sys.executable, "-m", "tests.support.chaos_search", tmp_path / "search.yaml", tmp_path / "run", faults]
    with out.open("w") as stream:
        search = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
    request.addfinalizer(search.kill)

    wait_until(lambda: len(nodes(folder)) == 1 + RELAXERS, 300, log)
    wait_until(lambda: len(list(faults.glob("done-relax-wait-*"))) >= RELAXERS, 300, out)
    taken = nodes(folder)[1]  # the worker that came first, and has been at work since
    taken.kill()  # as a spot machine is: no farewell
    wait_until(lambda: len(nodes(folder)) == 1 + RELAXERS, 300, out)  # another in its place
    assert search.wait(timeout=900) == 0, out.read_text()
    said = out.read_text()
    found = load_results(tmp_path / "run", structures=False)
    assert found["candidate"].is_unique
    pd.testing.assert_frame_equal(
        comparable(found), comparable(load_results(tmp_path / "undisturbed", structures=False))
    )
    assert "relax node" in said  # the call that was lost was tried again
    notes = (tmp_path / "run" / "log.jsonl").read_text()
    assert f"{RELAXERS} relaxers were requested, but the cluster has 0 CPUs" in notes

    wait_until(lambda: len(nodes(folder)) == 1, 300, log)  # the request has been withdrawn
