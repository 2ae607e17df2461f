"""Report of a screen: voltage against capacity, filters, the hosts empty and full in 3D, voltage curves."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from pymatgen.core import Composition

from model.crystals.crystal import Crystal
from search.electrodes.config import load_screen
from search.electrodes.curves import Electrode, electrodes_of, plain_rows, topotactic_curve, usable
from search.electrodes.screener import GAVE_UP
from search.electrodes.store import CONFIG, load_rows
from search.reporting.report import VIEWER, safe
from search.storage.cif import cif_text, conventional_cell
from search.storage.paths import RunPath
from search.storage.rows import unpack_or_raise

ROWS_SHOWN = 200  # electrodes in the table
OPENED = 300  # electrodes of the highest energy whose crystals the page holds
COLUMNS = (  # of the CSV file that the page makes
    "host",
    "source",
    "host_formula",
    "guest",
    "full_formula",
    "x",
    "average_voltage",
    "topotactic_voltage",
    "judge_voltage",
    "conversion_voltage",
    "capacity",
    "volumetric_capacity",
    "energy",
    "volumetric_energy",
    "volume_change",
    "topotactic",
    "collapsed",
    "e_d_empty",
    "e_d_full",
    "coordination",
    "percolates",
    "hop",
    "bottleneck",
    "barrier",
)


def build_screen_report(run: RunPath, *, live: bool = False, known: dict[str, dict[str, Any]] | None = None) -> str:
    """Build the HTML page.

    Args:
        run: folder or address of the screen.
        live: whether the page polls its server for changes.
        known: cache of crystals by electrode; those of this page are added.

    Raises:
        ValueError: nothing is stored yet.
    """
    config, frame = load_screen(run / CONFIG), load_rows(run)
    electrodes = electrodes_of(frame)
    rows = {key: plain_rows(some) for key, some in frame.groupby(["host", "source", "guest"], sort=False)}
    good = [one for one in electrodes if one.status == "electrode"]
    known = {} if known is None else known
    for one in good[:OPENED]:
        if _identity(one) not in known:
            known[_identity(one)] = _crystals(one, rows[one.host, one.source, one.guest])
    environment = Environment(
        loader=PackageLoader("search.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("screen.html.jinja").render(
        name=config.name,
        potential=config.potential,
        facts=_facts(electrodes, good),
        ions=sorted({one.guest for one in good}),
        reasons=_reasons([one for one in electrodes if one.status != "electrode"]),
        shown=ROWS_SHOWN,
        columns=json.dumps(COLUMNS),
        electrodes=safe(json.dumps([_record(one, rows[one.host, one.source, one.guest]) for one in good])),
        crystals=safe(json.dumps({_identity(one): known[_identity(one)] for one in good[:OPENED]})),
        plotly=get_plotlyjs(),
        viewer=VIEWER.read_text(),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("hostguide"),
        live=live,
    )


def _identity(one: Electrode) -> str:
    return f"{one.host}-{one.guest}"


def _record(one: Electrode, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """An electrode for the page; numbers that are not finite are left out."""
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(one).items()
    }
    kept = [] if one.topotactic else usable(topotactic_curve(rows))
    return values | {
        "id": _identity(one),
        "elements": sorted(Composition(one.host_formula or "").get_el_amt_dict()),
        "topotactic_steps": [(step.start, step.end, step.voltage) for step in kept],
    }


def _crystals(one: Electrode, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The empty and the full host, with which the page shows them and offers them as CIF."""
    assert one.full is not None
    ends = {"empty": rows[0], "full": rows[one.full]}
    return {end: _crystal(unpack_or_raise(row["final"]), one, end) for end, row in ends.items()}


def _crystal(crystal: Crystal, one: Electrode, end: str) -> dict[str, Any]:
    shown = Crystal.from_pymatgen(conventional_cell(crystal)).wrapped()
    return {
        "name": f"{one.host}-{one.guest}-{end}",
        "lattice": shown.lattice.round(4).tolist(),
        "symbols": shown.symbols,
        "fractional": shown.fractional.round(4).tolist(),
        "guests": [one.guest],
        "cif": cif_text(crystal),
    }


def _facts(electrodes: list[Electrode], good: list[Electrode]) -> list[tuple[str, str]]:
    seconds = sum(one.seconds for one in electrodes)
    facts = [
        ("pairs of host and ion", f"{len(electrodes):,}"),
        ("with a voltage", f"{len(good):,}"),
        ("host kept", f"{sum(bool(one.topotactic) for one in good):,}"),
        ("CPU time", f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"),
    ]
    if good:
        facts.append(("highest energy", f"{good[0].energy:.0f} Wh/kg ({good[0].full_formula})"))
    return facts


def _reasons(others: list[Electrode]) -> list[dict[str, Any]]:
    """Why there is no voltage, the most frequent first."""
    groups: dict[str, list[Electrode]] = defaultdict(list)
    for one in others:
        groups[GAVE_UP.get(one.status, one.status)].append(one)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [{"reason": reason, "pairs": len(some), "example": _called(some[0])} for reason, some in ordered]


def _called(one: Electrode) -> str:
    return " with ".join(name for name in (one.host, one.guest) if name)
