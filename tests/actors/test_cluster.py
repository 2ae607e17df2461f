"""The Ray of one machine, and who may talk to it."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray
from ray import cloudpickle

from actors.cluster import _short_folder, connected

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


class Worker:
    def process(self) -> int:
        return os.getpid()

    def niceness(self) -> int:
        return os.nice(0)


def listening() -> list[tuple[str, str]]:
    """(process, address) of every TCP socket on which this process or one below it waits for connections."""
    here = psutil.Process()
    return [
        (process.name(), connection.laddr.ip)
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def test_loopback_is_told_from_other_addresses():
    assert all(is_loopback(address) for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(address) for address in ("0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2"))


@pytest.fixture(scope="module")
def worker():
    """A worker of a local Ray."""
    with connected("local") as capacity:
        assert capacity.cpus == len(os.sched_getaffinity(0))
        yield ray.remote(Worker).options(num_cpus=0).remote()


def test_the_local_ray_listens_on_loopback_only(worker):
    assert ray.get(worker.process.remote()) != os.getpid()  # workers listen too
    sockets = listening()
    assert {"gcs_server", "raylet", "ray::Worker"} <= {process for process, _ in sockets}
    assert [socket for socket in sockets if not is_loopback(socket[1])] == []


def test_local_workers_are_as_nice_as_the_program(worker):
    assert ray.get(worker.niceness.remote()) == os.nice(0)


def test_the_folder_of_a_killed_process_is_removed_by_the_next():
    code = "import time, actors.cluster as c\nwith c._short_folder() as name: print(name, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        first = Path(process.stdout.readline().strip())
        with _short_folder() as second:
            there = first.is_dir()
            process.kill()
            process.wait()
            with _short_folder():
                left = first.is_dir(), Path(second).is_dir()
    assert there and left == (False, True)  # kept as long as its process lives
    assert not Path(second).exists()
