"""The results of a run: one Parquet data set with one row per candidate and one immutable part per task.

A part gets its final name, the task's identity, only when it is complete and on disk. So a killed run loses at most
the unfinished tasks, a stored task is never repeated, and no candidate is stored twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model.files import TEMPORARY
from search.storage.judgements import with_judges
from search.storage.paths import RunPath, rename, run_path, write_whole
from search.storage.rows import SCHEMA_VERSION, HistoryRow, Row, names, rows_of, table_of, unpack

READERS = 16  # parts read at the same time, because object stores respond slowly


class DamagedPart(ValueError):
    """A part whose content is not what was written, for example because of a failing disk."""


class ResultStore:
    """The ``candidates`` folder of a run."""

    def __init__(self, run: RunPath) -> None:
        self.folder = run / "candidates"
        self.folder.mkdir(parents=True, exist_ok=True)

    def tasks(self) -> set[str]:
        """Identities of the tasks that are stored."""
        return {path.stem for path in parts_in(self.folder)}

    def append(self, task: str, rows: Sequence[Row]) -> None:
        """Store all rows of one task, or none if the process dies."""
        self.write(task, self.encoded(rows)[0])

    def encoded(self, rows: Sequence[Row]) -> tuple[bytes, pa.Table]:
        """Rows of a task as content of a Parquet file, and as the table that `history` will read."""
        table = table_of(rows, Row)
        buffer = pa.BufferOutputStream()
        # With few rows, dictionaries and statistics only make columns larger, and zstd is slow.
        pq.write_table(
            table, buffer, compression="lz4", use_dictionary=False, write_statistics=False, write_page_checksum=True
        )
        return bytes(buffer.getvalue()), table.select(names(HistoryRow))

    def write(self, task: str, content: bytes) -> None:
        """Store the part of a task, or nothing if the process dies."""
        write_whole(self.folder / f"{task}.parquet", content)

    def tidy(self) -> None:
        """Remove incomplete files of killed processes; call only while holding the run's lock."""
        for path in self.folder.glob(f"{TEMPORARY}*"):
            path.unlink()

    def set_aside(self, task: str) -> str:
        """Rename a damaged part, so that it is not read and its task is repeated; returns the new name."""
        aside = f"_damaged-{task}.parquet"
        rename(self.folder / f"{task}.parquet", aside)
        return aside

    def rows(self, tasks: Iterable[str]) -> list[Row]:
        """Rows of the named tasks, in the order of the names."""
        return [row for task in tasks for row in rows_of(read_part(self.folder / f"{task}.parquet"), Row)]

    def history(self, task: str) -> pa.Table:
        """Rows of a task, with only the columns that planning needs (`HistoryRow`)."""
        return read_part(self.folder / f"{task}.parquet", names(HistoryRow))

    def histories(self, tasks: Iterable[str]) -> dict[str, Future[pa.Table]]:
        """`history` of several tasks, read in parallel; each future gives the rows or raises the error."""
        with ThreadPoolExecutor(READERS) as readers:
            return {task: readers.submit(self.history, task) for task in tasks}


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the content of a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return bytes(buffer.getvalue())


def read_part(path: RunPath, columns: Sequence[str] | None = None, *, version: str = SCHEMA_VERSION) -> pa.Table:
    """Read one part.

    Args:
        path: the file.
        columns: columns to read (default: all).
        version: of the schema that it must have.

    Raises:
        DamagedPart: the file is damaged.
        ValueError: its schema version is another.
    """
    content = path.read_bytes()
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read(None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedPart(
            f"{path} is damaged ({error}). Rerun the same search: it sets the file aside and repeats the task."
        ) from error
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != version:
        raise ValueError(
            f"{path} has results schema version {found}, but this program reads version {version}. "
            "Read it with the version of hostguide named in run.json, or search in a new folder."
        )
    return table


def load_results(run: str | RunPath, *, structures: bool = True) -> pd.DataFrame:
    """All candidates of a run as a DataFrame, best E_d first, with what judges said of them (`with_judges`).

    ``e_d_believed`` (eV/atom), by which they are ordered, is the E_d of the search's judge, else what was expected of
    it; a crystal that repeats another has that of the other. In a search without a judge it is ``e_d``.

    Args:
        run: folder of the run, or its address in an object store.
        structures: add the columns ``structure`` and ``structure_initial`` with pymatgen Structures (None if a
            candidate has none).

    Raises:
        ValueError: the folder contains no results.
    """
    parts = parts_in(run_path(run) / "candidates")
    if not parts:
        raise ValueError(f"{run} contains no results; run `hostguide search CONFIG --run {run}` first")
    with ThreadPoolExecutor(READERS) as readers:
        table = pa.concat_tables(readers.map(read_part, parts))
    frame = table.to_pandas(maps_as_pydicts="strict")
    frame = frame.assign(e_d_believed=_believed(frame))
    frame = frame.sort_values(["e_d_believed", "candidate"], ignore_index=True)
    if structures:
        for column, source in (("structure", "final"), ("structure_initial", "initial")):
            frame[column] = pd.Series([unpack(value) for value in frame[source]], dtype=object, index=frame.index).map(
                lambda crystal: None if crystal is None else crystal.to_pymatgen(), na_action=None
            )
    return with_judges(frame, run_path(run))


def _believed(frame: pd.DataFrame) -> pd.Series:
    """E_d (eV/atom) by which the candidates are ordered."""
    said = frame["e_d_judge"].fillna(frame["e_d_expected"])
    for _ in range(len(frame)):  # a crystal may repeat one that repeats another
        further = said.fillna(frame["duplicate_of"].map(dict(zip(frame["candidate"], said, strict=True))))
        if further.notna().sum() == said.notna().sum():
            break
        said = further
    return said.fillna(frame["e_d"])


def write_json(path: RunPath, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically and durably."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True).encode())


def parts_in(folder: RunPath) -> list[RunPath]:
    """The parts in a folder, by name."""
    found: list[RunPath] = [path for path in folder.glob("*.parquet") if not path.name.startswith("_")]
    return sorted(found, key=lambda path: path.name)
