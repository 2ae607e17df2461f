"""What other potentials said about the crystals of a run: one row per crystal and judge, in ``judges.parquet``.

And what `hostguide verify` found of them, in ``verification.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model.thermodynamics import STABLE
from search.storage.paths import RunPath, run_path, write_whole
from search.storage.rows import ARROW_CRYSTAL, StoredCrystal

FILE = "judges.parquet"
VERIFICATION = "verification.json"
SCHEMA_VERSION = "1"
SCHEMA = pa.schema(
    [
        ("candidate", pa.string()),  # or the name of a crystal from a file
        ("formula", pa.string()),  # reduced
        ("space_group", pa.string()),  # in the search
        ("e_d", pa.float64()),  # eV/atom, of the search; empty for a crystal from a file
        ("potential", pa.string()),  # of the search; likewise
        ("judge", pa.string()),  # the other potential
        ("version", pa.string()),  # of the judge
        ("e_d_first", pa.float64()),  # eV/atom, by the judge, as the search left it
        ("e_d_judge", pa.float64()),  # eV/atom, by the judge, relaxed with it; empty if that failed
        ("energy", pa.float64()),  # eV/atom, likewise
        ("products", pa.map_(pa.string(), pa.float64())),
        ("converged", pa.bool_()),
        ("reason", pa.string()),  # why the relaxation ended
        ("steps", pa.int32()),
        ("seconds", pa.float64()),
        ("reference", pa.string()),  # of the judge
        ("missing", pa.list_(pa.string())),  # stable phases that the judge's hull lacks
        ("final", ARROW_CRYSTAL),  # relaxed with the judge
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


@dataclass(frozen=True, kw_only=True)
class JudgementRow:
    """One row; the fields are the columns of `SCHEMA`, which says what they hold."""

    candidate: str
    formula: str
    space_group: str | None
    e_d: float | None
    potential: str | None
    judge: str
    version: str
    e_d_first: float
    e_d_judge: float
    energy: float
    products: Mapping[str, float]
    converged: bool
    reason: str
    steps: int
    seconds: float
    reference: str
    missing: Sequence[str]
    final: StoredCrystal

    @property
    def record(self) -> dict[str, Any]:
        """For Arrow."""
        return {**asdict(self), "products": list(self.products.items()), "final": self.final.record}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all potentials together say about one crystal.

    Attributes:
        candidate, space_group, e_d, formula: see `SCHEMA`.
        judges: their rows, by name.
    """

    candidate: str
    formula: str
    space_group: str | None
    e_d: float | None
    judges: Mapping[str, JudgementRow]

    @property
    def values(self) -> list[float]:
        """E_d (eV/atom) by the search and by each judge, as far as they have one."""
        given = [self.e_d, *(row.e_d_judge for row in self.judges.values())]
        return [value for value in given if value is not None and math.isfinite(value)]

    @property
    def low(self) -> float:
        """The lowest of them; NaN if there is none."""
        return min(self.values, default=math.nan)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values, default=math.nan)

    @property
    def spread(self) -> float:
        """Highest minus lowest, eV/atom: the error bar."""
        return self.high - self.low

    @property
    def disagree(self) -> bool:
        """Whether some call the crystal stable and others do not."""
        return len({value <= STABLE for value in self.values}) > 1

    @property
    def record(self) -> dict[str, Any]:
        """Fields of the record that `hostguide judge --json` prints."""
        return {**asdict(self), "spread": self.spread, "disagree": self.disagree}


def verdicts(rows: Iterable[JudgementRow]) -> list[Verdict]:
    """The rows put together by crystal, in the order of their first rows."""
    by_crystal: dict[str, list[JudgementRow]] = {}
    for row in rows:
        by_crystal.setdefault(row.candidate, []).append(row)
    return [
        Verdict(
            candidate=name,
            formula=some[0].formula,
            space_group=some[0].space_group,
            e_d=some[0].e_d,
            judges={row.judge: row for row in some},
        )
        for name, some in by_crystal.items()
    ]


def store_judgements(run: RunPath, rows: Sequence[JudgementRow]) -> None:
    """Add rows to those of a run; what a judge said earlier about the same crystal is replaced."""
    new = {(row.candidate, row.judge) for row in rows}
    kept = [row for row in load_judgements(run) if (row.candidate, row.judge) not in new]
    table = pa.Table.from_pylist([row.record for row in (*kept, *rows)], schema=SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_whole(run / FILE, bytes(buffer.getvalue()))


def load_judgements(run: RunPath) -> list[JudgementRow]:
    """The stored rows of a run; none if nobody has judged it.

    Raises:
        ValueError: they were written by another version.
    """
    if not (run / FILE).is_file():
        return []
    table = pq.read_table(pa.BufferReader((run / FILE).read_bytes()))
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != SCHEMA_VERSION:
        raise ValueError(
            f"{run / FILE} has version {found}, and this program reads {SCHEMA_VERSION}: judge the run again"
        )
    return [
        JudgementRow(**{**row, "products": dict(row["products"]), "final": StoredCrystal(**row["final"])})
        for row in table.to_pylist()
    ]


def with_judges(frame: pd.DataFrame, run: RunPath) -> pd.DataFrame:
    """Candidates with what the judges said.

    Returns:
        the frame with the columns ``judges`` (judge -> E_d in eV/atom; empty if nobody judged it), ``e_d_low`` and
        ``e_d_high`` (eV/atom, the lowest and highest E_d by search and judges) and ``judges_disagree``.
    """
    panel = {one.candidate: one for one in verdicts(load_judgements(run))}
    judges, values = [], []
    for name, e_d, judge, by_judge in zip(
        frame["candidate"], frame["e_d"], frame["judge"], frame["e_d_judge"], strict=True
    ):
        rows = panel[name].judges if name in panel else {}
        # pandas has NaN where there is no judge
        said = ({judge: by_judge} if isinstance(judge, str) else {}) | {
            other: row.e_d_judge for other, row in rows.items()
        }
        judges.append(said)
        values.append([value for value in (e_d, *said.values()) if math.isfinite(value)] if said else [])
    return frame.assign(
        judges=judges,
        e_d_low=[min(some, default=math.nan) for some in values],
        e_d_high=[max(some, default=math.nan) for some in values],
        judges_disagree=[len({value <= STABLE for value in some}) > 1 for some in values],
    )


def load_verification(run: str | RunPath) -> list[dict[str, Any]]:
    """What `hostguide verify` stored, one object for each crystal, see docs/verdict.md; empty if nothing."""
    path = run_path(run) / VERIFICATION
    found: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.is_file() else []
    return found
