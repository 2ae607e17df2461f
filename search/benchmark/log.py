"""What the reconstruction benchmark has done so far, in a file: a run that was stopped continues from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.benchmark.reconstruct import Case, Placement, Record


class RecordLog:
    """Records of a benchmark on disk, one JSON line each; the first line says what they have in common.

    Attributes:
        path: the file; without one, records are kept in memory only.
        records: (method, case, guest) -> record.

    Raises:
        ValueError: the file holds a benchmark with other settings.
    """

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        self.path = path
        self.records: dict[tuple[str, str, str], Record] = {}
        if path is None:
            return
        lines = path.read_text().splitlines() if path.exists() else []
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(header) + "\n")
            return
        other = json.loads(lines[0])
        if other != header:
            changed = [
                f"{key} {other.get(key)!r} (now {value!r})" for key, value in header.items() if other.get(key) != value
            ]
            raise ValueError(f"{path} holds a benchmark with {', '.join(changed)}; choose another --json, or remove it")
        for line in lines[1:]:
            try:
                self._keep(record_of(json.loads(line)))
            except json.JSONDecodeError:
                continue  # a line that was being written when the process was killed: its case is done again

    def add(self, record: Record) -> None:
        """Keep a record, on disk first."""
        if self.path is not None:
            torn = self.path.read_bytes()[-1:] != b"\n"
            with self.path.open("a") as file:
                file.write("\n" * torn + json.dumps(asdict(record)) + "\n")
        self._keep(record)

    def chosen(self, method: str, cases: Sequence[Case]) -> list[Record]:
        """Records of these cases, as far as they are done."""
        keys = [(method, case.name, case.guest) for case in cases]
        return [self.records[key] for key in keys if key in self.records]

    def _keep(self, record: Record) -> None:
        self.records[record.method, record.case, record.guest] = record


def record_of(content: dict[str, Any]) -> Record:
    """A record from its line in the file."""
    return Record(**{**content, "attempts": tuple(Placement(**one) for one in content["attempts"])})
