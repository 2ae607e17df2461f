"""File of finished cases of the reconstruction benchmark, from which an interrupted benchmark resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.benchmark.reconstruct import Case, Placement, Record


class RecordLog:
    """Records of a benchmark on disk, one JSON line each; the first line contains the common settings.

    Attributes:
        path: the file; if None, records are kept in memory only.
        records: (method, case, guest) -> record.

    Raises:
        ValueError: the file contains a benchmark with other settings.
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
            raise ValueError(
                f"{path} contains a benchmark with {', '.join(changed)}; choose another --json, or remove the file"
            )
        for line in lines[1:]:
            try:
                self._keep(record_of(json.loads(line)))
            except json.JSONDecodeError:
                continue  # an incomplete line of a killed process; its case is repeated

    def add(self, record: Record) -> None:
        """Add a record, first on disk and then in memory."""
        if self.path is not None:
            torn = self.path.read_bytes()[-1:] != b"\n"
            with self.path.open("a") as file:
                file.write("\n" * torn + json.dumps(asdict(record)) + "\n")
        self._keep(record)

    def chosen(self, method: str, cases: Sequence[Case]) -> list[Record]:
        """Records of those cases that are done."""
        keys = [(method, case.name, case.guest) for case in cases]
        return [self.records[key] for key in keys if key in self.records]

    def _keep(self, record: Record) -> None:
        self.records[record.method, record.case, record.guest] = record


def record_of(content: dict[str, Any]) -> Record:
    """A record from its line in the file."""
    return Record(**{**content, "attempts": tuple(Placement(**one) for one in content["attempts"])})
