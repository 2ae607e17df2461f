"""Report of a run: one self-contained HTML page with figures, the best crystals and their structures in 3D."""

from __future__ import annotations

import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from pymatgen.util.string import htmlify

from model.generation.framework import choose_guest
from model.thermodynamics.stability import Stability
from search.config import SearchConfig
from search.config_file import load_config
from search.dft import FILE as DFT
from search.planning.prepare import load_reference
from search.reporting import figures
from search.reporting.figure_data import (
    changes_data,
    cpu_seconds,
    funnel_data,
    hull_data,
    progress_data,
    relaxed,
    symmetry_data,
)
from search.reporting.verdict_cards import cards, reached_by_exchange
from search.storage.cif import ConventionalCell, crystal_name, plain_cif, tolerances
from search.storage.judgements import load_judgements, load_verification
from search.storage.paths import RunPath
from search.storage.ranking import new_below_hull, rank, remark
from search.storage.results import load_results
from search.storage.rows import unpack_or_raise

VIEWER = Path(__file__).parent / "vendor" / "3Dmol-min.js"
CRYSTALS_SHOWN = 50  # crystals in the table
OPENED = 1000  # number of lowest-E_d crystals that can be opened by clicking on a point


def build_report(run: RunPath, *, live: bool = False, known: dict[str, dict[str, Any]] | None = None) -> str:
    """Build the HTML page.

    Args:
        run: folder or address of the run.
        live: whether the page polls its server for changes.
        known: cache of crystals by candidate; those of this page are added.

    Raises:
        ValueError: the run contains no relaxed crystal.
    """
    frame, config = load_results(run, structures=False), load_config(run / "config.yaml")
    if relaxed(frame).empty:
        raise ValueError(f"{run} contains no relaxed crystal yet")
    stability = Stability(load_reference(config, run), config.compositions.elements)
    best, others = rank(frame, top=CRYSTALS_SHOWN), _other_verdicts(run, frame)
    verified = [one for one in load_verification(run) if one["name"] in set(frame["candidate"])]
    grades = {one["name"]: one["grade"] for one in verified}
    named = frame[frame["candidate"].isin(grades)]
    opened = pd.concat([best, named, relaxed(frame).head(OPENED)]).drop_duplicates("candidate")
    known = {} if known is None else known
    for row in opened.to_dict("records"):
        if row["candidate"] not in known:
            known[row["candidate"]] = _crystal(row, config)
    hull = hull_data(frame, stability)
    drawn = {"hull": figures.hull(hull)} if hull else {}
    drawn |= {
        "progress": figures.progress(progress_data(frame)),
        "symmetry": figures.symmetry(symmetry_data(frame)),
        "changes": figures.changes(changes_data(frame)),
        "funnel": figures.funnel(funnel_data(frame)),
    }
    environment = Environment(
        loader=PackageLoader("search.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["subscripts"] = lambda text: Markup(htmlify(text))
    return environment.get_template("report.html.jinja").render(
        name=config.name,
        system="-".join(config.compositions.elements),
        facts=_facts(frame, config)
        + ([("out of reach of ion exchange", reached_by_exchange(verified))] if verified else []),
        best=[
            _table_row(row) | {"others": others.get(row["candidate"], {}), "verdict": grades.get(row["candidate"], "")}
            for row in best.to_dict("records")
        ],
        verdicts=cards(verified),
        opinions=list(dict.fromkeys(name for given in others.values() for name in given)),
        figures={name: safe(figure.to_json()) for name, figure in drawn.items()},
        crystals=safe(json.dumps({candidate: known[candidate] for candidate in opened["candidate"]})),
        plotly=get_plotlyjs(),
        viewer=VIEWER.read_text(),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("hostguide"),
        live=live,
    )


def safe(text: str) -> str:
    """JSON that is safe inside a script element."""
    return text.replace("</", "<\\/")


def _facts(frame: pd.DataFrame, config: SearchConfig) -> list[tuple[str, str]]:
    good = relaxed(frame)
    seconds = cpu_seconds(frame).sum()
    best = good.iloc[0]
    return [
        ("lowest E_d", f"{1e3 * best['e_d_believed']:+.1f} meV/atom ({best['formula']})"),
        ("new, below the hull", f"{len(new_below_hull(frame)):,}"),
        ("candidates", f"{len(frame):,}"),
        ("relaxed", f"{len(good):,}"),
        ("compositions", f"{frame['formula'].nunique()}"),
        ("CPU time", f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"),
        ("energies", config.models.potential_entry.name),
    ]


def _other_verdicts(run: RunPath, frame: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Candidate -> other method -> its E_d (meV/atom), and a note if there is a caveat."""
    verdicts: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in frame.dropna(subset=["e_d_judge"]).to_dict("records"):
        verdicts[row["candidate"]][row["judge"]] = {"e_d": f"{1e3 * row['e_d_judge']:+.1f}", "note": ""}
    for row in load_judgements(run):
        note = "" if row.converged else "unconverged"
        e_d = f"{1e3 * row.e_d_judge:+.1f}" if math.isfinite(row.e_d_judge) else "–"
        verdicts[row.candidate][row.judge] = {"e_d": e_d, "note": note}
    if (run / DFT).is_file():
        from search.dft.results import load_dft  # slow, and most runs have no such results

        for row in load_dft(run).dropna(subset=["e_d"]).to_dict("records"):
            note = row["functional"] + ("" if row["converged"] else ", unconverged")
            verdicts[row["candidate"]].setdefault("DFT", {"e_d": f"{1e3 * row['e_d']:+.1f}", "note": note})
    return verdicts


def _table_row(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "candidate": row["candidate"],
        "formula": row["formula"],
        "atoms": row["n_atoms"],
        "space_group": row["space_group"] if isinstance(row["space_group"], str) else "P1",
        "e_d": f"{round(1e3 * row['e_d'], 1) + 0.0:+.1f}",
        "products": [(f"{share:.2f}", name, name in row["single_points"]) for name, share in row["products"].items()],
        "volume": f"{row['volume_per_atom']:.1f}",
        "lineage": _lineage(row),
        "remark": remark(row),
    }


def _lineage(row: dict[Any, Any]) -> str:
    if not isinstance(row["parent"], str):
        return "new"
    made_from = f"host {row['framework_space_group']} of" if isinstance(row["framework"], str) else "mutation of"
    return f"{made_from} {row['parent']}"


def _crystal(row: dict[Any, Any], config: SearchConfig) -> dict[str, Any]:
    """Data with which the page shows a crystal and offers it as CIF."""
    crystal = unpack_or_raise(row["final"])
    cell = ConventionalCell.of(crystal, *tolerances(row))
    shown = crystal.wrapped() if cell is None else cell.crystal
    facts = _table_row(row)
    return {
        "name": crystal_name(row),
        "title": f"{facts['formula']} · {facts['space_group']} · {facts['e_d']} meV/atom",
        "lattice": shown.lattice.round(4).tolist(),
        "symbols": shown.symbols,
        "fractional": shown.fractional.round(4).tolist(),
        "guests": choose_guest(crystal, config.frameworks.guests) if len(set(crystal.symbols)) > 1 else [],
        "cif": plain_cif(crystal) if cell is None else cell.cif,
    }


def serve(run: RunPath, port: int, build: Callable[..., str] = build_report) -> ThreadingHTTPServer:
    """A web server for the report, on this machine only; every request gets the current state of the run.

    ``/`` is the page; ``/version`` changes when results are added. The caller runs `serve_forever`.

    Args:
        run: folder or address.
        port: 0 picks a free one.
        build: makes the page, as `build_report` does.
    """
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, run, _Cache(run, build)))


class _Cache:
    """The page, rebuilt when the run has new parts."""

    def __init__(self, run: RunPath, build: Callable[..., str]) -> None:
        self.run, self.build, self.lock = run, build, threading.Lock()
        self.of, self.text = "", ""
        self.known: dict[str, dict[str, Any]] = {}

    def version(self) -> str:
        return str(sum(1 for _ in (self.run / "candidates").glob("*.parquet")))

    def page(self) -> str:
        with self.lock:
            if self.of != (now := self.version()):
                try:
                    self.of, self.text = now, self.build(self.run, live=True, known=self.known)
                except ValueError as error:
                    return f'<meta http-equiv="refresh" content="10"><p>{error}. This page reloads every 10 s.</p>'
            return self.text


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, run: RunPath, cache: _Cache, *rest: Any) -> None:
        self.run, self.cache = run, cache
        super().__init__(*rest)

    def do_GET(self) -> None:
        if self.path not in ("/", "/version"):
            self.send_error(404)
            return
        body = (self.cache.page() if self.path == "/" else self.cache.version()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if self.path == "/" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
