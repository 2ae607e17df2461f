"""Starting Ray on one machine, or joining a cluster, and what it has to offer."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import ray
from ray._private import ray_constants
from ray.autoscaler.sdk import request_resources
from ray.exceptions import AuthenticationError

OBJECT_STORE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs that Ray knows of."""

    cpus: int
    gpus: int


@contextmanager
def connected(address: str) -> Iterator[Capacity]:
    """Start a private Ray on this machine (``local``) or join one, and leave it at the end.

    Raises:
        ConnectionError: no cluster answers at the address, or it wants another token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # an actor uses one core
        os.environ.setdefault(name, "1")
    # Ray announces a future default here; nothing in this project depends on it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with ExitStack() as stack:
        folder = stack.enter_context(_short_folder())
        stack.callback(ray.shutdown)
        if address == "local":
            stack.enter_context(_on_loopback())
            _start_private(folder)
        else:
            _join(address)
        yield capacity()


def capacity() -> Capacity:
    """What Ray has now."""
    resources = ray.cluster_resources()
    return Capacity(cpus=int(resources.get("CPU", 0)), gpus=int(resources.get("GPU", 0)))


def ask_for(cpus: int) -> None:
    """Tell the cluster's autoscaler, if it has one, how many CPUs are wanted; its own limit stands."""
    request_resources(num_cpus=cpus)


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError) as error:
        raise ConnectionError(
            f"no Ray cluster at {address} lets us in ({error}). If there is one, it wants its token: set "
            "RAY_AUTH_MODE=token, and have the token in ~/.ray/auth_token or in RAY_AUTH_TOKEN"
        ) from error


def _start_private(folder: str) -> None:
    """Ray for this process alone."""
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray that starts meanwhile listens on 127.0.0.1 only, which is its default on macOS and Windows.

    On Linux it would take the machine's address and listen on every interface, and it turns a 127.0.0.1 that it is
    given into that address. Its own processes read the variable; in this process it was read when Ray was imported.
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
    """A temporary folder for Ray's sockets, whose paths may have 107 characters at most."""
    folder = tempfile.mkdtemp(prefix="hg-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Ray's last writers may still be at it
