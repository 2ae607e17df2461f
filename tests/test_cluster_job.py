"""A real search as a job on two real Ray nodes of this machine, started and guarded as docs/cluster.md says."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from ray._private.services import get_node_ip_address

from search.storage.results import load_results
from tests.support.configs import per_round

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
TINY = {
    "name": "tiny",
    "compositions": {"cells": [{"Li": 2, "Si": 1}, {"Li": 3, "Si": 1}]},
    "frameworks": {"guests": ["Li"]},
    "sampling": {"diffusion": {"kind": "heun", "steps": 4}, "inpainting": {"kind": "heun", "steps": 4}},
    "relaxation": {"max_steps": 5},
    "policy": {"rounds": 2, **per_round(4, 2), "samples": 2, "batch": 2, "rounds_ahead": 0},
}


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def folder():
    """A folder with a short name, as Ray's sockets need one; its `tmp` is where programs put what may be lost."""
    path = Path(tempfile.mkdtemp(prefix="hg-", dir="/tmp"))
    (path / "tmp").mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)  # Ray's last writers may still be at it


@pytest.fixture(scope="module")
def environment(folder):
    """Of a user with a home of their own, and a token in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    changes = {"HOME": str(folder), "TMPDIR": str(folder / "tmp"), "PATH": f"{BIN}:{kept['PATH']}"}
    made = {**kept, **changes, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=made, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def cluster(folder, environment):
    """Addresses, for jobs and for drivers, of a head without CPUs and a worker with one.

    Both run in front, so that no `ray stop` is needed, which would end every Ray on this machine.
    """
    ports = {name: free_port() for name in ("gcs", "dashboard", "client", "head", "worker")}
    address = f"{get_node_ip_address()}:{ports['gcs']}"
    head = ["--head", "--num-cpus=0", f"--port={ports['gcs']}", f"--dashboard-port={ports['dashboard']}"]
    head += ["--dashboard-host=127.0.0.1", f"--temp-dir={folder}/ray", f"--ray-client-server-port={ports['client']}"]
    worker = [f"--address={address}", "--num-cpus=1"]
    nodes = []
    try:
        for count, (name, arguments) in enumerate((("head", head), ("worker", worker)), start=1):
            arguments += ["--block", f"--dashboard-agent-listen-port={ports[name]}", "--object-store-memory=100000000"]
            command = [BIN / "ray", "start", *arguments]
            with (folder / f"{name}.log").open("w") as log:
                nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
            wait_for_nodes(count, address, environment, nodes, folder)
        yield f"http://127.0.0.1:{ports['dashboard']}", address
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.wait(timeout=60)


@pytest.fixture
def dashboard(cluster):
    return cluster[0]


def alive(address, environment):
    """Number of nodes of the cluster that answer."""
    code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('nodes', len(ray.nodes()))"
    command = [sys.executable, "-c", code, address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return int(done.stdout.rpartition("nodes ")[2] or 0)


def wait_for_nodes(count, address, environment, nodes, folder):
    deadline = time.monotonic() + 240
    while alive(address, environment) < count:
        logs = [path.read_text() for path in sorted(folder.glob("*.log"))]
        assert time.monotonic() < deadline and all(node.poll() is None for node in nodes), "\n".join(logs)
        time.sleep(1)


def submit(dashboard, environment, name, *search):
    command = [BIN / "ray", "job", "submit", "--address", dashboard, "--submission-id", name, "--"]
    command += [sys.executable, "-m", "search.cli", *search]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


def test_a_search_runs_as_a_job_and_keeps_its_results(folder, environment, dashboard):
    config, run = folder / "tiny.yaml", folder / "runs" / "tiny"
    config.write_text(yaml.safe_dump(TINY))
    done = submit(dashboard, environment, "tiny-1", "search", str(config), "--address", "auto", "--run", str(run))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Finished: 10 candidates" in done.stdout
    assert len(load_results(run)) == 10
    again = submit(dashboard, environment, "tiny-2", "search", str(config), "--address", "auto", "--run", str(run))
    assert again.returncode == 0 and "Finished: 10 candidates" in again.stdout
    assert load_results(run)["candidate"].is_unique


@pytest.mark.parametrize("run", ["runs/tiny", "{folder}/tmp/tiny"])
def test_a_job_refuses_a_run_that_would_be_lost(folder, environment, dashboard, run):
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    place = run.format(folder=folder)
    name = place.replace("/", "-").strip("-")
    done = submit(dashboard, environment, name, "search", str(config), "--address", "auto", "--run", place)
    assert done.returncode != 0
    assert f"--run {place}: results in this folder would be lost with the Ray job" in done.stdout + done.stderr
    assert not Path(place).exists()


def test_nobody_without_the_token_is_served(folder, environment, dashboard, cluster):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{dashboard}/api/jobs/", timeout=30)
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    search = [sys.executable, "-m", "search.cli", "search", config, "--address", cluster[1], "--run", folder / "none"]
    for changes in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        stranger = {**environment, **changes}
        done = submit(dashboard, stranger, "stranger", "--version")
        assert done.returncode != 0
        assert "401" in done.stderr or "authentication" in done.stderr.lower()
        done = subprocess.run(search, env=stranger, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 2 and "it requires its token" in done.stderr
