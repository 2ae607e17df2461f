"""The log of a run, and the failed attempts that a later start needs to know about."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from model.reasons import Reason
from search.storage.paths import RunPath, StorePath, unwritten, write_whole
from search.storage.results import write_json

SAVE_SECONDS = 60.0
TRIES_BY_CAUSE: dict[str, int] = {Reason.NODE: 5}  # losses of a node say little about a task
TRIES_OTHERWISE = 2


class Journal:
    """``log.jsonl`` of a run: one JSON object per line with ``time`` (UTC), ``event`` and what it refers to.

    Lines are appended. A line that a killed process left incomplete is removed at the next start. Object stores cannot
    append: there each start has its own object ``log-<time>.jsonl``, which `save` rewrites as it grows.
    """

    def __init__(self, run: RunPath) -> None:
        self._lines, self._saved = bytearray(), time.monotonic()
        self._file: FileIO | None = None
        if isinstance(run, StorePath):
            self._path: RunPath = run / f"log-{_now()}.jsonl"
            return
        self._path = run / "log.jsonl"
        self._file = self._path.open("ab", buffering=0)  # unbuffered: nothing left to flush if the disk is full
        self._file.truncate(self._path.read_bytes().rfind(b"\n") + 1)

    def note(self, event: str, **fields: Any) -> None:
        """Write one line; raises OSError if the disk is full."""
        line = json.dumps({"time": _now(), "event": event, **fields}, ensure_ascii=False).encode() + b"\n"
        if self._file is None:
            self._lines += line
            return
        try:
            self._file.write(line)
        except OSError as error:
            raise unwritten(Path(self._file.name), error) from error

    def save(self, every: float = SAVE_SECONDS) -> None:
        """In an object store, rewrite the log if the last write was more than ``every`` seconds ago."""
        if self._file is None and time.monotonic() - self._saved > every:
            write_whole(self._path, bytes(self._lines))
            self._saved = time.monotonic()

    def close(self) -> None:
        """Save and close the log."""
        self.save(0.0)
        if self._file is not None:
            self._file.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Attempt:
    """Failures so far of one task, or of one of its candidates that is processed alone.

    Attributes:
        failures: cause -> number of failures.
        message: error message of the last failure.
    """

    failures: Counter[str] = field(default_factory=Counter)
    message: str = ""

    def count(self, cause: str, message: str) -> None:
        """Count one more failure."""
        self.failures[cause] += 1
        self.message = message

    @property
    def too_often(self) -> str | None:
        """The cause that occurred too often; None while another try is allowed."""
        for cause, count in self.failures.items():
            if count >= TRIES_BY_CAUSE.get(cause, TRIES_OTHERWISE):
                return cause
        return None


class Attempts:
    """Failed attempts of unfinished tasks, in ``attempts.json``, so that a resumed run does not repeat them.

    The file is replaced atomically, so that it is never half written.
    """

    def __init__(self, run: RunPath) -> None:
        self.path = run / "attempts.json"
        self._known: dict[str, dict[str, Attempt]] = {}
        self._saved = True
        if self.path.exists():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            for task, entries in content.items():
                self._known[task] = {
                    name: Attempt(Counter(entry["failures"]), entry["message"]) for name, entry in entries.items()
                }

    def of(self, task: str, candidate: int | None = None) -> Attempt:
        """Failures of a task, or of its candidate with this number."""
        return self._known.get(task, {}).get(_name(candidate), Attempt())

    def add(self, task: str, candidate: int | None, cause: str, message: str) -> Attempt:
        """Count one failure; `save` writes it to disk."""
        attempt = self._known.setdefault(task, {}).setdefault(_name(candidate), Attempt())
        attempt.count(cause, message)
        self._saved = False
        return attempt

    def forget(self, task: str) -> None:
        """Drop a task that has been stored; its rows record the failures."""
        if self._known.pop(task, None) is not None:
            self._saved = False

    def save(self) -> None:
        """Write the file if anything has changed."""
        if self._saved:
            return
        content = {
            task: {name: {"failures": dict(one.failures), "message": one.message} for name, one in entries.items()}
            for task, entries in self._known.items()
        }
        write_json(self.path, content)
        self._saved = True


def _name(candidate: int | None) -> str:
    return "all" if candidate is None else str(candidate)
