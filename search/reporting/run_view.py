"""Runs and crystals in a notebook: the hull, a table, and a crystal that can be turned. No network is needed."""

from __future__ import annotations

import html
import io
import itertools
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from model.crystals.crystal import Crystal
from search.storage.cif import ConventionalCell, tolerances
from search.storage.paths import RunPath, run_path
from search.storage.ranking import rank, remark
from search.storage.results import load_results
from search.storage.rows import unpack_or_raise

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from search.reporting.figure_data import HullData

VIEWER = Path(__file__).parent / "vendor" / "3Dmol-min.js"
SHOWN = 10  # crystals in the table of a run
HEIGHT = 320  # of a crystal, pixels

PAGE = """<!doctype html><meta charset="utf-8"><style>html, body, #view {{margin: 0; width: 100%; height: 100%}}</style>
<div id="view" style="position: absolute"></div><script>{library}</script><script>
const cell = {cell}, view = $3Dmol.createViewer("view", {{backgroundColor: "white"}});
view.addModel(cell.xyz, "xyz");
view.setStyle({{}}, {{stick: {{radius: 0.12}}, sphere: {{scale: 0.3}}}});
for (const [start, end] of cell.edges) view.addLine({{start, end, color: "gray"}});
view.zoomTo(); view.rotate(20, "y"); view.rotate(15, "x"); view.render();
</script>"""


def crystal_html(crystal: Crystal, title: str) -> str:
    """HTML of a crystal that can be turned with the mouse, under a title."""
    crystal = crystal.wrapped()
    atoms = [f"{s} {x:.4f} {y:.4f} {z:.4f}" for s, (x, y, z) in zip(crystal.symbols, crystal.cartesian, strict=True)]
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    ends = [(a, b) for a, b in itertools.combinations(corners, 2) if np.abs(b - a).sum() == 1]
    edges = [[dict(zip("xyz", (end @ crystal.lattice).tolist(), strict=True)) for end in pair] for pair in ends]
    cell = json.dumps({"xyz": "\n".join([str(len(atoms)), "", *atoms]), "edges": edges})
    page = PAGE.format(library=VIEWER.read_text(encoding="utf-8"), cell=cell)
    return (
        f"<p>{html.escape(title)}</p><iframe srcdoc='{html.escape(page, quote=True)}' "
        f"style='width: 100%; max-width: 480px; height: {HEIGHT}px; border: 1px solid #ddd'></iframe>"
    )


class Run:
    """A run, as a notebook shows it.

        run = Run("runs/li-si")
        run.best(5)[["formula", "space_group", "e_d"]]

    Args:
        place: folder or address of the run.
    """

    def __init__(self, place: str | RunPath) -> None:
        self.place = run_path(place)

    def __repr__(self) -> str:
        return f"Run({str(self.place)!r})"

    @cached_property
    def results(self) -> pd.DataFrame:
        """All candidates, lowest E_d first, as when this was first asked for."""
        return load_results(self.place)

    def best(self, top: int = SHOWN, *, formula: str | None = None) -> pd.DataFrame:
        """The best distinct crystals."""
        return rank(self.results, top=top, formula=formula)

    def hull(self) -> go.Figure:
        """The hull of a binary or ternary system, with what was found, as a Plotly figure.

        Raises:
            ValueError: another number of elements.
        """
        from search.reporting.figures import hull

        data = self._hull_data()
        if data is None:
            raise ValueError(f"{self.place}: a hull can be drawn for two or three elements")
        return hull(data)

    def crystal(self, number: int = 1) -> CrystalView:
        """One of the best crystals, 1 being the lowest, in its conventional cell; it can be turned in a notebook."""
        best = self.best(number)
        if len(best) < number:
            raise ValueError(f"{self.place} has {len(best)} distinct relaxed crystals, and {number} was asked for")
        row = best.iloc[-1].to_dict()
        crystal = unpack_or_raise(row["final"])
        cell = ConventionalCell.of(crystal, *tolerances(row))
        group = row["space_group"] if isinstance(row["space_group"], str) else "P1"
        title = f"{row['formula']}, {group}, E_d {1e3 * row['e_d']:+.1f} meV/atom"
        return CrystalView(crystal if cell is None else cell.crystal, title)

    def _hull_data(self) -> HullData | None:
        from model.thermodynamics.stability import Stability
        from search.config_file import load_config
        from search.planning.prepare import load_reference
        from search.reporting.figure_data import hull_data

        config = load_config(self.place / "config.yaml")
        return hull_data(self.results, Stability(load_reference(config), config.compositions.elements))

    def _repr_html_(self) -> str:
        if not any((self.place / "candidates").glob("[!_]*.parquet")) or (best := self.best()).empty:
            return f"<p>{html.escape(str(self.place))}: no relaxed crystal yet.</p>"
        return self._hull_html() + self._table_html(best) + self.crystal()._repr_html_()

    def _hull_html(self) -> str:
        import matplotlib.pyplot as plt

        from search.reporting.plots import STYLE, draw_hull

        data = self._hull_data()
        if data is None:
            return ""
        drawn = io.StringIO()
        with plt.style.context(STYLE):
            figure = draw_hull(data)
            figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
        return drawn.getvalue()[drawn.getvalue().index("<svg") :]

    def _table_html(self, best: pd.DataFrame) -> str:
        columns = {
            "formula": best["formula"],
            "atoms": best["n_atoms"],
            "space group": best["space_group"].fillna(""),
            "E_d meV/atom": (1e3 * best["e_d"]).round(1) + 0.0,
            "decomposes into": best["products"].map(
                lambda one: " + ".join(f"{x:.2f} {name}" for name, x in one.items())
            ),
            "remark": [remark(row) for row in best.to_dict("records")],
        }
        return pd.DataFrame(columns).to_html(index=False)


class CrystalView:
    """A crystal with a title; a notebook shows it so that it can be turned.

    Attributes:
        crystal: the crystal.
        title: what is written above it.
    """

    def __init__(self, crystal: Crystal, title: str) -> None:
        self.crystal, self.title = crystal, title

    def __repr__(self) -> str:
        return self.title

    @property
    def structure(self) -> Structure:
        """As a pymatgen Structure."""
        return self.crystal.to_pymatgen()

    def _repr_html_(self) -> str:
        return crystal_html(self.crystal, self.title)
