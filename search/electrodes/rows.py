"""The columns of a screen: one row per host, ion and content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import pyarrow as pa

from search.storage.rows import ARROW_CRYSTAL, StoredCrystal, column

SCHEMA_VERSION = "screen-1"
PLAN, CRYSTAL, ENERGY, HOST, PATHS = "plan", "crystal", "energy", "host", "paths"


class Outcome(StrEnum):
    """What became of one content."""

    FILLED = "filled"
    EMPTY = "empty"  # content 0
    FAILED = "failed"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectrodeRow:
    """A host with a number of guests of one ion."""

    task: str = column(pa.string(), PLAN, "name of its task (host and ion) and of its file", required=True)
    host: str = column(pa.string(), PLAN, "name of the host", required=True)
    source: str = column(pa.string(), PLAN, "file, table or library that the host comes from", required=True)
    guest: str = column(pa.string(), PLAN, "element", required=True)
    charge: int | None = column(pa.int8(), PLAN, "of the guest's ion")
    host_formula: str | None = column(pa.string(), PLAN, "reduced, without guests")
    count: int | None = column(pa.int32(), PLAN, "guests in the cell; empty where the host could not be filled at all")
    x: float | None = column(pa.float64(), PLAN, "guests per formula unit of the host")
    units: float | None = column(pa.float64(), PLAN, "formula units of the host in the cell")
    most: int | None = column(pa.int32(), PLAN, "most guests in the cell by charge and room")
    status: Outcome = column(pa.string(), PLAN, "`empty`, `filled`, `failed` or `given_up`", required=True)
    reason: str = column(pa.string(), PLAN, "why it failed or was given up; otherwise empty", required=True)
    final: StoredCrystal | None = column(ARROW_CRYSTAL, CRYSTAL, "lowest arrangement, host atoms first", unit="Å")
    topotactic_final: StoredCrystal | None = column(
        ARROW_CRYSTAL, CRYSTAL, "lowest arrangement that kept its host, where this is another one", unit="Å"
    )
    space_group: str | None = column(pa.string(), CRYSTAL, "of `final`, at 0.01 Å if polished, else at 0.1 Å")
    n_atoms: int | None = column(pa.int32(), CRYSTAL, "atoms in the cell")
    arrangements: int | None = column(pa.int32(), CRYSTAL, "relaxed in full")
    energy: float | None = column(pa.float64(), ENERGY, "of `final`", unit="eV/atom")
    topotactic_energy: float | None = column(
        pa.float64(), ENERGY, "of the lowest arrangement that kept its host", unit="eV/atom"
    )
    judge_energy: float | None = column(pa.float64(), ENERGY, "of `final`, by the second potential", unit="eV/atom")
    guest_energy: float | None = column(pa.float64(), ENERGY, "of the guest's element", unit="eV/atom")
    judge_guest_energy: float | None = column(pa.float64(), ENERGY, "the same, by the second potential", unit="eV/atom")
    e_d: float | None = column(pa.float64(), ENERGY, "decomposition energy of `final`", unit="eV/atom")
    products: str | None = column(pa.string(), ENERGY, "what it would decompose into")
    conversion_voltage: float | None = column(
        pa.float64(), ENERGY, "average, if the stable phases of this composition formed instead", unit="V"
    )
    volume: float | None = column(
        pa.float64(),
        HOST,
        "of `final`, per formula unit of the host; of an empty host that collapsed, that of the host as given",
        unit="Å³",
    )
    volume_change: float | None = column(pa.float64(), HOST, "of `final`, relative to the empty host")
    topotactic_volume: float | None = column(
        pa.float64(), HOST, "of the lowest arrangement that kept its host, per formula unit", unit="Å³"
    )
    host_kept: bool | None = column(
        pa.bool_(),
        HOST,
        "whether the host of `final` is the framework that was given; of the empty host also within 20 % of its volume",
    )
    host_moved: float | None = column(pa.float64(), HOST, "root-mean-square displacement of its atoms", unit="Å")
    coordination: str | None = column(pa.string(), HOST, "of the guests, the most frequent first: `6 O (100 %)`")
    percolates: int | None = column(pa.int8(), PATHS, "dimensions in which hops between guest sites lead on")
    hop: float | None = column(pa.float64(), PATHS, "longest hop needed to percolate in one dimension", unit="Å")
    bottleneck: float | None = column(
        pa.float64(), PATHS, "smallest distance from these hops to an atom of the host", unit="Å"
    )
    direction: str | None = column(pa.string(), PATHS, "where these hops lead")
    barrier: float | None = column(pa.float64(), PATHS, "highest on the easiest path, where asked for", unit="eV")
    potential: str = column(pa.string(), ENERGY, "potential that computed the energies", required=True)
    score_model: str | None = column(pa.string(), PLAN, "name and content hash of its weights")
    seconds: float | None = column(pa.float64(), PLAN, "CPU time of this content", unit="s")

    @property
    def record(self) -> dict[str, Any]:
        """As a dictionary for Arrow."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        crystals = {name: one.record for name in ("final", "topotactic_final") if (one := values[name]) is not None}
        return values | crystals

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ElectrodeRow:
        """Inverse of `record`."""
        crystals = {
            name: None if record[name] is None else StoredCrystal(**record[name])
            for name in ("final", "topotactic_final")
        }
        return cls(**{**record, **crystals, "status": Outcome(record["status"])})


def schema() -> pa.Schema:
    """Arrow schema of the rows."""
    columns = [(one.name, one.metadata["kind"]) for one in fields(ElectrodeRow)]
    return pa.schema(columns, metadata={"schema_version": SCHEMA_VERSION})


def explained() -> str:
    """The columns as a Markdown table for docs/electrodes.md."""
    lines = [
        f"| `{one.name}` | {one.metadata['unit']} | {one.metadata['about']} |".replace("|  |", "| |")
        for one in fields(ElectrodeRow)
    ]
    return "\n".join(["| column | unit | meaning |", "|---|---|---|", *lines])
