"""What happens in a run, line by line, and the failed attempts that a later start has to know of."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from search.results import explained, write_json


class Journal:
    """``log.jsonl`` of a run: one JSON object a line with ``time`` (UTC), ``event``, and whom it concerns.

    A line that a killed process left unfinished is cut off at the next start.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "log.jsonl"
        self._file = self._path.open("ab", buffering=0)  # so that nothing is left to write when the disk is full
        self._file.truncate(self._path.read_bytes().rfind(b"\n") + 1)

    def note(self, event: str, **fields: Any) -> None:
        """Write one line; raises OSError when the disk is full."""
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "event": event, **fields}, ensure_ascii=False) + "\n"
        with explained(self._path):
            self._file.write(line.encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass
class Attempt:
    """What failed so far of one task, or of one candidate of it that goes on alone.

    Attributes:
        failures: cause -> how often.
        message: of the last failure, in the error's own words.
    """

    failures: Counter[str] = field(default_factory=Counter)
    message: str = ""


class Attempts:
    """Failed attempts of tasks that are not stored yet, in ``attempts.json``: a poisonous crystal is not met anew.

    The file is replaced as a whole, so that it is never half written.
    """

    def __init__(self, run: Path) -> None:
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
        """What failed of a task, or of its candidate with this number."""
        return self._known.get(task, {}).get(_name(candidate), Attempt())

    def add(self, task: str, candidate: int | None, cause: str, message: str) -> Attempt:
        """Count one failure; `save` makes it last."""
        attempt = self._known.setdefault(task, {}).setdefault(_name(candidate), Attempt())
        attempt.failures[cause] += 1
        attempt.message, self._saved = message, False
        return attempt

    def forget(self, task: str) -> None:
        """The task is stored, and what failed stands in its rows."""
        if self._known.pop(task, None) is not None:
            self._saved = False

    def save(self) -> None:
        """Write the file if something has changed."""
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
