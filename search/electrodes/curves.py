"""From the rows of a screen to electrodes: hull in x, voltage curve, capacity, volume change of each host and ion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from model.analysis.electrode import average_voltage, gravimetric_capacity, volumetric_capacity
from model.analysis.voltage import VoltageStep, voltage_curve
from search.electrodes.rows import Outcome
from search.storage.rows import unpack_or_raise

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Electrode:
    """A host and an ion; voltages in V against the ion's element. ``None`` where something is unknown.

    Attributes:
        source, guest, charge, host: as in the rows.
        host_formula, full_formula: reduced; full is the fullest content that is `usable`.
        x: guests per formula unit of the host when full.
        average_voltage: from empty to full.
        topotactic_voltage: the same, of the arrangements that kept their host.
        judge_voltage: of the lowest arrangements, by the second potential.
        conversion_voltage: if the stable phases of the full composition formed instead.
        inserts: whether insertion is what the hull allows: the conversion lies less than 0.1 V higher.
        capacity, volumetric_capacity: mAh/g and mAh/cm³ of the full host.
        volumetric_energy, energy: Wh/l and Wh/kg, average voltage times capacity.
        volume_change: relative, from empty to full.
        topotactic: whether the host is kept in every content on the hull.
        collapsed: whether the empty host is no longer the framework that was given.
        e_d_empty, e_d_full: eV/atom.
        coordination, percolates, hop, bottleneck, direction, barrier: as in the rows.
        steps: the voltage curve, (x from, x to, V) each.
        full: number of the full row among the rows.
        status: ``electrode``; ``no_voltage`` where no content is reached at V > 0; else why there is none.
        seconds: CPU time.
    """

    host: str
    source: str
    guest: str
    charge: int | None = None
    host_formula: str | None = None
    full_formula: str | None = None
    x: float | None = None
    average_voltage: float | None = None
    topotactic_voltage: float | None = None
    judge_voltage: float | None = None
    conversion_voltage: float | None = None
    inserts: bool | None = None
    capacity: float | None = None
    volumetric_capacity: float | None = None
    energy: float | None = None
    volumetric_energy: float | None = None
    volume_change: float | None = None
    topotactic: bool | None = None
    collapsed: bool | None = None
    e_d_empty: float | None = None
    e_d_full: float | None = None
    coordination: str | None = None
    percolates: int | None = None
    hop: float | None = None
    bottleneck: float | None = None
    direction: str | None = None
    barrier: float | None = None
    steps: tuple[tuple[float, float, float], ...] = ()
    full: int | None = None
    status: str
    seconds: float = 0.0


STEP_KEPT = 0.5
INSERTION_MARGIN = 0.1  # V; a conversion this much above the insertion is not told from it


def electrodes_of(frame: pd.DataFrame) -> list[Electrode]:
    """The electrodes of all rows of a screen, highest gravimetric energy first, those without a voltage last.

    Args:
        frame: from `search.electrodes.store.load_rows`.
    """
    found = [electrode(plain_rows(rows)) for _, rows in frame.groupby(["host", "source", "guest"], sort=False)]
    return sorted(found, key=lambda one: (-(one.energy if one.energy is not None else -math.inf), one.host, one.guest))


def electrode(rows: Rows) -> Electrode:
    """One host and ion, from its rows by increasing content."""
    first = rows[0]
    base = {name: first[name] for name in ("host", "source", "guest", "charge", "host_formula")}
    base["seconds"] = sum(row["seconds"] or 0.0 for row in rows)
    if first["status"] != Outcome.EMPTY:
        return Electrode(**base, status=first["reason"])
    base |= {"collapsed": not first["host_kept"], "e_d_empty": first["e_d"]}
    filled = [row for row in rows if row["status"] == Outcome.FILLED]
    if not filled:
        return Electrode(**base, status=rows[1]["reason"] if len(rows) > 1 else "no_room")
    steps = usable(_curve([first, *filled], "energy"))
    if not steps:
        return Electrode(**base, **_ends(first, filled[0]), status="no_voltage", full=list(rows).index(filled[0]))
    contents = {round(x, 6) for step in steps for x in (step.start, step.end)}
    on_hull = [row for row in filled if round(row["x"], 6) in contents]
    full = on_hull[-1]
    return Electrode(
        **base,
        **_ends(first, full),
        topotactic=all(row["host_kept"] for row in on_hull),
        steps=tuple((step.start, step.end, step.voltage) for step in steps),
        full=list(rows).index(full),
        status="electrode",
    )


def usable(steps: Sequence[VoltageStep]) -> list[VoltageStep]:
    """The steps up to where the voltage falls below `STEP_KEPT` of the average so far: there one stops.

    >>> curve = [VoltageStep(0, 1, ("CoO2", "LiCoO2"), 4.0), VoltageStep(1, 2, ("LiCoO2", "Li2CoO2"), 1.2)]
    >>> [step.end for step in usable(curve)]
    [1]
    """
    kept = list[VoltageStep]()
    for step in steps:
        charge = sum((one.end - one.start) * one.voltage for one in kept)
        if kept and step.voltage < STEP_KEPT * charge / kept[-1].end:
            break
        kept.append(step)
    return kept


def topotactic_curve(rows: Rows) -> list[VoltageStep]:
    """The voltage curve of the arrangements that kept their host."""
    return _curve([row for row in rows if row["status"] in (Outcome.EMPTY, Outcome.FILLED)], "topotactic_energy")


def _curve(rows: Rows, energy: str) -> list[VoltageStep]:
    """Steps of the rows, the first of which is the empty host, by one of their columns of energies."""
    first = rows[0]
    phases = [(_cell(first), first["energy"])]
    phases += [(_cell(row), row[energy]) for row in rows[1:] if row[energy] is not None]
    return voltage_curve(
        phases, first["guest"], first["host_formula"], guest_energy=first["guest_energy"], charge=first["charge"]
    )


def _cell(row: dict[str, Any]) -> str:
    return str(unpack_or_raise(row["final"]).composition.formula)


def _ends(first: dict[str, Any], full: dict[str, Any]) -> dict[str, Any]:
    """What follows from the empty and the full host."""
    x, charge, guest, host = full["x"], first["charge"], first["guest"], first["host_formula"]

    def voltage(column: str, metal: str = "guest_energy") -> float | None:
        empty = first["judge_energy" if column == "judge_energy" else "energy"]
        if empty is None or full[column] is None or first[metal] is None:
            return None
        ends = empty * first["n_atoms"] / first["units"], full[column] * full["n_atoms"] / full["units"]
        return average_voltage(*ends, x, first[metal], charge)

    average, capacity = voltage("energy"), gravimetric_capacity(host, guest, x, charge)
    by_volume = volumetric_capacity(full["volume"], x, charge)
    conversion = full["conversion_voltage"]
    assert average is not None
    return {
        "full_formula": unpack_or_raise(full["final"]).formula,
        "x": x,
        "average_voltage": average,
        "topotactic_voltage": voltage("topotactic_energy"),
        "judge_voltage": voltage("judge_energy", "judge_guest_energy"),
        "conversion_voltage": conversion,
        "inserts": None if conversion is None else conversion - average < INSERTION_MARGIN,
        "capacity": capacity,
        "volumetric_capacity": by_volume,
        "energy": average * capacity,
        "volumetric_energy": average * by_volume,
        "volume_change": full["volume"] / first["volume"] - 1,
        "e_d_full": full["e_d"],
        **{name: full[name] for name in ("coordination", "percolates", "hop", "bottleneck", "direction", "barrier")},
    }


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a DataFrame as dictionaries, missing values as None."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """NaN and pandas' missing values as None."""
    return None if not isinstance(value, dict | str) and pd.isna(value) else value


def electrode_table(electrodes: Sequence[Electrode]) -> pd.DataFrame:
    """Electrodes as a table for CSV and Parquet; steps as text, `0–0.5: 3.91, 0.5–1: 3.62`."""
    rows = [asdict(one) for one in electrodes]
    for row in rows:
        row["steps"] = ", ".join(f"{a:g}–{b:g}: {v:.2f}" for a, b, v in row["steps"])
        del row["full"]
    return pd.DataFrame(rows)
