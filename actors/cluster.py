"""Starting Ray on one machine or joining a cluster, and finding its resources."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import ray_constants
from ray.autoscaler.sdk import request_resources
from ray.exceptions import AuthenticationError

OBJECT_STORE_BYTES = 200 * 2**20
FOLDERS = "hg-"  # how the names of Ray's folders in /tmp begin
# Workers look for modules in the driver's working folder first, where a user may have a `model.py`.
RUNTIME_ENV = {"worker_process_setup_hook": "hostguide_start.use_own_packages"}


@dataclass(frozen=True)
class Capacity:
    """Number of CPUs and GPUs known to Ray."""

    cpus: int
    gpus: int


@contextmanager
def connected(address: str) -> Iterator[Capacity]:
    """Start a private Ray instance on this machine (``local``) or join a cluster; disconnect at the end.

    Raises:
        ConnectionError: no cluster answers at the address, or it requires another token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # an actor uses one core
        os.environ.setdefault(name, "1")
    # Silences Ray's warning about a future default that does not affect this project.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Added to this process's niceness. Ray's default of 15 leaves its workers nothing beside any other busy program.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with ExitStack() as stack:
        if address == "local":
            folder = stack.enter_context(_short_folder())
            stack.callback(ray.shutdown)
            stack.enter_context(_on_loopback())
            _start_private(folder)
        else:
            stack.callback(ray.shutdown)
            _join(address)
        yield capacity()


def capacity() -> Capacity:
    """Current resources of Ray."""
    resources = ray.cluster_resources()
    return Capacity(cpus=int(resources.get("CPU", 0)), gpus=int(resources.get("GPU", 0)))


def ask_for(cpus: int) -> None:
    """Request a number of CPUs from the cluster's autoscaler, if it has one, within its configured limit."""
    request_resources(num_cpus=cpus)


def _join(address: str) -> None:
    try:
        ray.init(address=address, runtime_env=RUNTIME_ENV, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError) as error:
        raise ConnectionError(
            f"cannot connect to a Ray cluster at {address} ({error}). If one is running, it requires its token: set "
            "RAY_AUTH_MODE=token, and put the token into ~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error


def _start_private(folder: str) -> None:
    """Start Ray for this process only."""
    ray.init(
        address="local",
        runtime_env=RUNTIME_ENV,
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Make a Ray instance started in this context listen on 127.0.0.1 only, its default on macOS and Windows.

    On Linux it would use the machine's address and listen on every interface, and it replaces a given 127.0.0.1 by that
    address. Ray's own processes read the environment variable; in this process it was read when Ray was imported.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]


@contextmanager
def _short_folder() -> Iterator[str]:
    """A temporary folder for Ray's sockets, whose paths may have at most 107 characters.

    A killed process cannot remove its folder; the next one that starts does. A file in it is locked as long as its
    process lives, and gets its name only once it is locked.
    """
    _remove_abandoned()
    folder = tempfile.mkdtemp(prefix=FOLDERS, dir="/tmp")
    unnamed = os.path.join(folder, "_lock")
    with open(unnamed, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rename(unnamed, os.path.join(folder, "lock"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # Ray's processes may still be writing


def _remove_abandoned() -> None:
    """Remove the folders of processes that were killed."""
    for lock in Path("/tmp").glob(f"{FOLDERS}*/lock"):
        with contextlib.suppress(OSError), lock.open() as held:  # held by a running process, or removed by another one
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
