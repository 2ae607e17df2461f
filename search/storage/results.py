"""The results of a run: one Parquet data set, one row a candidate, one immutable part a task.

A part appears under its final name only when it is complete and on disk, and its name is its task's identity. So a
killed run loses at most the tasks in flight, a task stored once is never run again, and no candidate is there twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model.crystals.crystal import Crystal
from search.storage.paths import RunPath, rename, run_path, write_whole

SCHEMA_VERSION = "4"

CRYSTAL = pa.struct(
    [
        ("lattice", pa.list_(pa.float64(), 9)),  # Å, rows one after the other
        ("fractional", pa.list_(pa.float64())),  # x1 y1 z1 x2 ...
        ("numbers", pa.list_(pa.int16())),
    ]
)
FRAMEWORK = pa.struct(
    [
        ("framework", pa.string()),  # identity
        ("host", CRYSTAL),
        ("guests", pa.map_(pa.string(), pa.int16())),  # to put back into this host
        ("space_group", pa.string()),
        ("space_group_number", pa.int16()),
        ("symprec", pa.float64()),  # Å
        ("angle_tolerance", pa.float64()),  # degrees
        ("displacement", pa.float64()),  # Å, the furthest an atom was moved
    ]
)
SCHEMA = pa.schema(
    [
        ("candidate", pa.string()),
        ("task", pa.string()),
        ("round", pa.int32()),
        ("stage", pa.string()),  # generated | inpainted
        ("generator", pa.string()),  # method that placed the atoms
        ("status", pa.string()),  # relaxed | unconverged | rejected | failed
        ("reason", pa.string()),  # why it is not `relaxed`; else empty
        ("detail", pa.string()),  # the error's own words, if there was one
        ("formula", pa.string()),  # reduced
        ("cell_formula", pa.string()),
        ("n_atoms", pa.int32()),
        ("lattice_system", pa.string()),  # Bravais symbol of the lattice it was generated in, e.g. cF
        ("volume_per_atom", pa.float64()),  # Å³, of the final structure
        ("prototype", pa.string()),  # known compound whose elements were exchanged
        ("parent", pa.string()),  # candidate whose framework was inpainted, or that was changed
        ("framework", pa.string()),
        ("framework_space_group", pa.string()),
        ("framework_symprec", pa.float64()),  # Å
        ("framework_displacement", pa.float64()),  # Å
        ("guests", pa.list_(pa.string())),
        ("sampler", pa.string()),  # settings as JSON
        ("relaxation", pa.string()),  # settings as JSON
        ("samples", pa.int32()),  # candidates that this pick of a framework was given
        ("evaluations", pa.int32()),  # of the network, shared by the batch
        ("seed", pa.int64()),
        ("initial", CRYSTAL),  # as generated
        ("final", CRYSTAL),  # as relaxed
        ("energy_initial", pa.float64()),  # eV/atom
        ("energy", pa.float64()),  # eV/atom, of `final`
        ("max_force_initial", pa.float64()),  # eV/Å
        ("max_force", pa.float64()),  # eV/Å
        ("pressure", pa.float64()),  # GPa
        ("steps", pa.int32()),
        ("orbits", pa.int32()),  # atoms that a step had to compute: one of each orbit where symmetry was kept
        ("converged", pa.bool_()),
        ("space_group", pa.string()),  # of `final`
        ("space_group_number", pa.int16()),
        ("symprec", pa.float64()),  # Å, at which it was found
        ("angle_tolerance", pa.float64()),  # degrees
        ("duplicate_of", pa.string()),  # earlier candidate of the same task with the same relaxed structure
        ("e_d", pa.float64()),  # eV/atom, decomposition energy; negative below the hull
        ("e_d_found", pa.float64()),  # eV/atom, the same against the hull with what the search had found by then
        ("products", pa.map_(pa.string(), pa.float64())),  # reduced formula -> fraction of atoms
        ("reference", pa.string()),
        ("potential", pa.string()),
        ("score_model", pa.string()),
        ("frameworks", pa.list_(FRAMEWORK)),
        ("seconds_generate", pa.float64()),  # share of the batch's wall time
        ("seconds_relax", pa.float64()),
        ("seconds_refine", pa.float64()),
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)
# What planning and progress look at; the driver and the planner see no more of a row than this.
PLANNED = (
    "candidate",
    "task",
    "round",
    "stage",
    "generator",
    "status",
    "reason",
    "formula",
    "cell_formula",
    "n_atoms",
    "lattice_system",
    "volume_per_atom",
    "parent",
    "framework",
    "sampler",
    "relaxation",
    "samples",
    "evaluations",
    "final",
    "energy",
    "steps",
    "orbits",
    "space_group",
    "duplicate_of",
    "e_d",
    "frameworks",
    "seconds_generate",
    "seconds_relax",
    "seconds_refine",
)
READERS = 16  # parts that are read at once: a store takes some time to answer
TIMINGS = ("seconds_generate", "seconds_relax", "seconds_refine")


class DamagedPart(ValueError):
    """A part that is not what was written, as a failing disk may leave it."""


class ResultStore:
    """The ``candidates`` folder of a run."""

    def __init__(self, run: RunPath) -> None:
        self.folder = run / "candidates"
        self.folder.mkdir(parents=True, exist_ok=True)

    def tasks(self) -> set[str]:
        """Identities of the tasks that are stored."""
        return {path.stem for path in _parts(self.folder)}

    def append(self, task: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store all rows of one task, or, if the process dies, none."""
        self.write(task, self.encoded(rows)[0])

    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> tuple[bytes, pa.Table]:
        """Rows of a task as the content of its part, and as `planned` will read them."""
        table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
        buffer = pa.BufferOutputStream()
        # Of some rows each column is short: dictionaries and statistics make it longer, and zstd takes its time.
        pq.write_table(
            table, buffer, compression="lz4", use_dictionary=False, write_statistics=False, write_page_checksum=True
        )
        return bytes(buffer.getvalue()), table.select(PLANNED)

    def write(self, task: str, content: bytes) -> None:
        """Store the part of a task, or, if the process dies, nothing."""
        write_whole(self.folder / f"{task}.parquet", content)

    def tidy(self) -> None:
        """Remove what killed processes left unfinished; only for the process that holds the run's lock."""
        for path in self.folder.glob("_tmp-*"):
            path.unlink()

    def set_aside(self, task: str) -> str:
        """Rename a damaged part, so that nobody reads it and its task is open again; returns the new name."""
        aside = f"_damaged-{task}.parquet"
        rename(self.folder / f"{task}.parquet", aside)
        return aside

    def rows(self, tasks: Iterable[str]) -> list[dict[str, Any]]:
        """Rows of the named tasks as dictionaries, in the order of the names."""
        return [row for task in tasks for row in dictionaries(read_part(self.folder / f"{task}.parquet"))]

    def planned(self, task: str) -> pa.Table:
        """Rows of a task, of each as much as planning needs."""
        return read_part(self.folder / f"{task}.parquet", PLANNED)

    def planned_each(self, tasks: Iterable[str]) -> dict[str, Future[pa.Table]]:
        """`planned` of several tasks, read at once: what came of each."""
        with ThreadPoolExecutor(READERS) as readers:
            return {task: readers.submit(self.planned, task) for task in tasks}


def dictionaries(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, one dictionary each."""
    rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="strict")
    return rows


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the content of a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return bytes(buffer.getvalue())


def read_part(path: RunPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one part; raises ValueError when it is of another schema version, and DamagedPart when it is damaged.

    Args:
        path: the file.
        columns: only these.
    """
    content = path.read_bytes()
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read(None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedPart(
            f"{path} is damaged ({error}). Run the same search again: it sets the file aside and repeats its task."
        ) from error
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has results schema version {found}, this program reads {SCHEMA_VERSION}. "
            "Read it with the version of hostguide that is named in run.json, or search in a new folder."
        )
    return table


def load_results(run: str | RunPath, *, structures: bool = True) -> pd.DataFrame:
    """All candidates of a run as a DataFrame, best E_d first.

    Args:
        run: folder of the run, or its address in an object store.
        structures: add the columns ``structure`` and ``structure_initial`` with pymatgen Structures (None where a
            candidate has none).

    Raises:
        ValueError: the folder holds no results.
    """
    parts = _parts(run_path(run) / "candidates")
    if not parts:
        raise ValueError(f"{run} holds no results; `hostguide search CONFIG --run {run}` makes some")
    with ThreadPoolExecutor(READERS) as readers:
        table = pa.concat_tables(readers.map(read_part, parts))
    frame = table.to_pandas(maps_as_pydicts="strict").sort_values(["e_d", "candidate"], ignore_index=True)
    if structures:
        for column, source in (("structure", "final"), ("structure_initial", "initial")):
            frame[column] = pd.Series([unpack(value) for value in frame[source]], dtype=object, index=frame.index).map(
                lambda crystal: None if crystal is None else crystal.to_pymatgen(), na_action=None
            )
    return frame


def pack(crystal: Crystal | None) -> dict[str, Any] | None:
    """A crystal as the CRYSTAL struct, exactly."""
    if crystal is None:
        return None
    return {
        "lattice": crystal.lattice.ravel().tolist(),
        "fractional": crystal.fractional.ravel().tolist(),
        "numbers": crystal.numbers.tolist(),
    }


def unpack(value: Mapping[str, Any] | None) -> Crystal | None:
    """Inverse of `pack`."""
    if value is None:
        return None
    return Crystal(np.asarray(value["lattice"]).reshape(3, 3), value["fractional"], value["numbers"])


def required(value: Mapping[str, Any] | None) -> Crystal:
    """`unpack` for a field that is always there."""
    crystal = unpack(value)
    assert crystal is not None
    return crystal


def write_json(path: RunPath, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically and durably."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True).encode())


def _parts(folder: RunPath) -> list[RunPath]:
    found: list[RunPath] = [path for path in folder.glob("*.parquet") if not path.name.startswith("_")]
    return sorted(found, key=lambda path: path.name)
