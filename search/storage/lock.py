"""One driver per run: a file lock in a folder, a lease in an object store.

Object stores have no locks, and no library offers them for both S3 and Google. There each driver has its own object
under ``_drivers`` and rewrites it every `BEAT_SECONDS` (its heartbeat). It writes its own object before it looks for
those of others, so that of two drivers that start at the same time at least one sees the other (these stores list
everything written before). An object that has not been rewritten for `LEASE_SECONDS` belongs to a driver that was
killed. A driver that could not rewrite its own object for that long stores nothing more, unless the object still
exists.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model.files import held_alone
from search.storage.paths import RunPath, StorePath

LEASE_SECONDS = 60.0
BEAT_SECONDS = 15.0
FOLDER = "_drivers"


@contextmanager
def locked(run: RunPath) -> Iterator[Callable[[], None]]:
    """Lock a run for this driver.

    Yields:
        a function to call before anything is stored; it raises RuntimeError if another driver has taken over the run.

    Raises:
        ValueError: another process has locked the run.
    """
    if isinstance(run, StorePath):
        with _leased(run) as check:
            yield check
        return
    with held_alone(
        run / "lock", lambda holder: f"{holder} is running a search in {run}; wait for it or choose another folder"
    ):
        yield lambda: None  # a file lock cannot be lost


@contextmanager
def _leased(run: StorePath) -> Iterator[Callable[[], None]]:
    lease = _Lease(run)
    lease.begin()
    try:
        lease.wait_for_others()
        yield lease.check
    finally:
        lease.end()


class _Lease:
    """The object that marks a run as used by this driver."""

    def __init__(self, run: StorePath) -> None:
        self.run, self.folder = run, run / FOLDER
        self.mine = self.folder / f"{uuid.uuid4().hex}.json"
        about = {"host": socket.gethostname(), "process": os.getpid()}
        self.content = json.dumps(about).encode()
        self.lost, self.renewed = False, 0.0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def begin(self) -> None:
        """Write the object and start the heartbeat."""
        self._write()
        self.thread.start()

    def end(self) -> None:
        """Delete the object, so that the next driver need not wait."""
        self.done.set()
        self.thread.join()
        try:
            self.mine.unlink(missing_ok=True)
        except OSError as error:
            logging.warning(
                "%s: the lock could not be removed, so the next search must wait up to %.0f s (%s)",
                self.run,
                LEASE_SECONDS,
                error,
            )

    def wait_for_others(self) -> None:
        """Return once no other driver uses the run; raises ValueError if one is alive."""
        seen: dict[str, tuple[float, float]] = {}  # name -> when it was written, and when that was seen
        while others := self._others():
            for name, written in others.items():
                if name not in seen:
                    logging.warning(
                        "%s: %s was running a search here; waiting up to %.0f s to see whether it is still running",
                        self.run,
                        self._who(name),
                        LEASE_SECONDS,
                    )
                before, since = seen.setdefault(name, (written, time.monotonic()))
                if written != before:
                    raise ValueError(
                        f"{self._who(name)} is running a search in {self.run}; wait for it or choose another address"
                    )
                if time.monotonic() - since > LEASE_SECONDS:
                    (self.folder / name).unlink(missing_ok=True)
            self.done.wait(BEAT_SECONDS / 5)

    def check(self) -> None:
        """Raise RuntimeError if another driver has taken over the run."""
        if not self.lost and time.monotonic() - self.renewed > LEASE_SECONDS - BEAT_SECONDS:
            self._renew()
        if self.lost:
            raise RuntimeError(
                f"another search has taken over {self.run}, because no heartbeat of this one reached the store for "
                f"{LEASE_SECONDS:.0f} s; all stored results are kept"
            )

    def _beat(self) -> None:
        while not self.done.wait(BEAT_SECONDS) and not self.lost:
            try:
                self._renew()
            except OSError as error:  # `check` tries again before anything is stored
                logging.warning("%s: the heartbeat could not be written (%s)", self.run, error)

    def _renew(self) -> None:
        self.lost = not self.mine.exists()
        if not self.lost:
            self._write()

    def _write(self) -> None:
        at = time.monotonic()
        self.mine.write_bytes(self.content)
        self.renewed = at

    def _others(self) -> dict[str, float]:
        """Times at which the other drivers' objects were written; abandoned objects are deleted."""
        written = self.folder.changed()
        self.lost = self.mine.name not in written
        self.check()
        now = written.pop(self.mine.name)
        for name in [name for name, at in written.items() if now - at > LEASE_SECONDS]:
            (self.folder / name).unlink(missing_ok=True)
            del written[name]
        return written

    def _who(self, name: str) -> str:
        """Process and machine of a driver, for messages; its object may be unreadable or deleted by now."""
        try:
            about = json.loads((self.folder / name).read_bytes())
        except OSError:
            return "another process"
        return f"process {about['process']} on {about['host']}"
