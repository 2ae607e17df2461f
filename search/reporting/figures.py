"""Plotly figures for the report: each function takes the rows of a run and returns one figure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from pymatgen.core import Composition
from pymatgen.util.string import htmlify

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import rounded_steps
from model.generators.interface import Role
from model.thermodynamics.stability import Stability
from search.storage.rows import Status, unpack_or_raise

COLOURS = {Role.NEW: "#2f6fde", Role.FROM_HOST: "#e8710a"}
REFERENCE = "#7d8590"
CURVES = 8  # number of compositions whose progress is drawn


def relaxed(frame: pd.DataFrame) -> pd.DataFrame:
    """Candidates whose relaxation converged."""
    return frame[(frame["status"] == Status.RELAXED) & frame["e_d"].notna()]


def cpu_seconds(frame: pd.DataFrame) -> pd.Series:
    """CPU time of each candidate (s) for generation, relaxation and analysis, each on one core."""
    return frame[["seconds_generate", "seconds_relax", "seconds_analyse"]].fillna(0).sum(axis=1)


def hull(frame: pd.DataFrame, stability: Stability) -> go.Figure | None:
    """Formation energies of a binary system or E_d of a ternary one; None for other numbers of elements."""
    elements = sorted(stability.elements, key=lambda symbol: Composition(symbol).elements[0].X)
    drawing = {2: _line, 3: _triangle}.get(len(elements))
    return drawing(relaxed(frame), stability, elements) if drawing else None


def _fraction(formula: str, element: str) -> float:
    return float(Composition(formula).get_atomic_fraction(element))


def _formation(stability: Stability, formula: str) -> float:
    """Formation energy of the hull at a composition, eV/atom."""
    mixed = sum(_fraction(formula, e.symbol) * x.energy_per_atom for e, x in stability.diagram.el_refs.items())
    return float(stability.hull_energy(formula) - mixed)


def _stable(stability: Stability) -> list[str]:
    return sorted(entry.composition.reduced_formula for entry in stability.diagram.stable_entries)


def _above(stability: Stability) -> dict[str, float]:
    """Known phases above the hull: formula -> formation energy, eV/atom."""
    diagram = stability.diagram
    return {e.composition.reduced_formula: diagram.get_form_energy_per_atom(e) for e in diagram.unstable_entries}


def _line(rows: pd.DataFrame, stability: Stability, elements: list[str]) -> go.Figure:
    other = elements[-1]
    stable = sorted((_fraction(name, other), _formation(stability, name), name) for name in _stable(stability))
    x, y, names = zip(*stable, strict=True)
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            text=names,
            mode="lines+markers",
            name="reference hull",
            marker={"symbol": "square", "size": 8},
            line={"color": REFERENCE},
            hovertemplate="%{text}<extra>known</extra>",
        )
    )
    above = _above(stability)
    figure.add_scatter(
        x=[_fraction(formula, other) for formula in above],
        y=list(above.values()),
        text=list(above),
        mode="markers",
        name="known, above hull",
        marker={"symbol": "square-open", "size": 7, "color": REFERENCE},
        hovertemplate="%{text}<extra>known</extra>",
    )
    for role, colour in COLOURS.items():
        some = rows[rows["role"] == role]
        figure.add_scatter(
            x=[_fraction(formula, other) for formula in some["formula"]],
            y=[_formation(stability, formula) + e_d for formula, e_d in zip(some["formula"], some["e_d"], strict=True)],
            mode="markers",
            name=role,
            marker={"color": colour, "size": 7, "opacity": 0.65},
            **_hover(some),
        )
    _name_phases(figure, stable)
    figure.update_xaxes(title=f"fraction of {other}", range=[-0.03, 1.03])
    figure.update_yaxes(title="formation energy (eV/atom)", range=[min(y) * 1.35 - 0.03, 0.15])
    return figure


def name_place(at: float, phases: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Position of the name of a phase of a binary hull, such that it overlaps neither the hull nor other names.

    Args:
        at: fraction of the phase.
        phases: fraction and formation energy of all phases on the hull.

    Returns:
        The side of the hull's lowest phase (-1, 0 or 1), and the offset in lines, larger towards the lowest phase.
    """
    lowest = min(phases, key=lambda phase: phase[1])[0]
    outer = sum(0 < other < at if at <= lowest else at < other < 1 for other, _ in phases)
    return 0 if at == lowest else 1 if at > lowest else -1, outer


def _name_phases(figure: go.Figure, stable: Sequence[tuple[float, float, str]]) -> None:
    for at, energy, name in stable:
        place: dict[str, object] = {"showarrow": False, "yshift": 12}
        if 0 < at < 1:
            side, line = name_place(at, [phase[:2] for phase in stable])
            place = {"ax": 34 * side, "ay": 16 + 16 * line}
        figure.add_annotation(
            x=at, y=energy, text=htmlify(name), arrowwidth=0.7, arrowhead=0, arrowcolor=REFERENCE, standoff=4, **place
        )


def _triangle(rows: pd.DataFrame, stability: Stability, elements: list[str]) -> go.Figure:
    def at(formulas: list[str]) -> dict[str, list[float]]:
        return {axis: [_fraction(f, e) for f in formulas] for axis, e in zip("abc", elements, strict=True)}

    figure = go.Figure()
    for facet in stability.diagram.facets:
        corners = [stability.diagram.qhull_entries[i].composition.reduced_formula for i in facet]
        for pair in combinations(corners, 2):
            figure.add_scatterternary(
                **at(list(pair)),
                mode="lines",
                line={"color": REFERENCE, "width": 1},
                showlegend=False,
                hoverinfo="skip",
            )
    names = _stable(stability)
    figure.add_scatterternary(
        **at(names),
        text=names,
        mode="markers+text",
        textposition="top center",
        name="reference hull",
        marker={"symbol": "square", "size": 8, "color": REFERENCE},
        hovertemplate="%{text}<extra>known</extra>",
    )
    best = rows.sort_values("e_d", ascending=False)  # the best on top
    figure.add_scatterternary(
        **at(best["formula"].tolist()),
        mode="markers",
        name="found",
        **_hover(best),
        marker={
            "color": 1e3 * best["e_d"],
            "size": 9,
            "cmin": -20,
            "cmax": 200,
            "colorscale": "Viridis",
            "colorbar": {"title": "E_d<br>meV/atom", "thickness": 12},
            "showscale": True,
        },
    )
    figure.update_ternaries({f"{axis}axis_title": element for axis, element in zip("abc", elements, strict=True)})
    figure.update_layout(legend={"y": -0.1})
    return figure


def _hover(rows: pd.DataFrame) -> dict[str, object]:
    """Text shown when hovering over a point, and the candidate that a click opens."""
    facts = zip(rows["formula"], rows["space_group"].fillna("P1"), rows["e_d"], strict=True)
    text = [f"{formula}, {group}, E_d {1e3 * e_d:+.1f} meV/atom" for formula, group, e_d in facts]
    return {"customdata": rows["candidate"].tolist(), "text": text, "hovertemplate": "%{text}<extra></extra>"}


def progress(frame: pd.DataFrame) -> go.Figure:
    """Best E_d so far against CPU time, for the compositions with the best results."""
    frame = frame.sort_values(["round", "candidate"])
    spent = cpu_seconds(frame).cumsum() / 60
    rows = relaxed(frame)
    figure = go.Figure()
    for formula in rows.groupby("formula")["e_d"].min().nsmallest(CURVES).index:
        own = rows[rows["formula"] == formula]
        best = own["e_d"].cummin()
        new = own[best.diff().fillna(-1) < 0].index
        x = [*spent[new], spent.iloc[-1]]
        y = [*1e3 * best[new], 1e3 * best.iloc[-1]]
        figure.add_scatter(x=x, y=y, name=formula, mode="lines", line={"shape": "hv"})
    figure.update_xaxes(title="CPU time (min)", rangemode="tozero")
    highest = max((max(curve.y) for curve in figure.data), default=0.0)
    lowest = 1e3 * rows["e_d"].min()
    figure.update_yaxes(title="best E_d so far (meV/atom)", range=[min(-5, 1.1 * lowest), min(300, 1.1 * highest + 5)])
    return figure


def funnel(frame: pd.DataFrame) -> go.Figure:
    """How many candidates are left after each step, and the reasons for dropping the others."""
    good = relaxed(frame)
    distinct = good[good["duplicate_of"].isna()]
    counts = {
        "candidates": len(frame),
        "passed screening": int((frame["status"] != Status.REJECTED).sum()),
        "relaxed": len(good),
        "distinct in batch": len(distinct),
        "E_d < 100 meV/atom": int((distinct["e_d"] < 0.1).sum()),
        "E_d < 50 meV/atom": int((distinct["e_d"] < 0.05).sum()),
    }
    figure = make_subplots(
        2, 1, specs=[[{"type": "funnel"}], [{"type": "bar"}]], row_heights=[0.65, 0.35], vertical_spacing=0.08
    )
    figure.add_trace(
        go.Funnel(y=list(counts), x=list(counts.values()), marker={"color": "#2f6fde"}, showlegend=False), 1, 1
    )
    dropped = frame[frame["reason"] != ""]["reason"].str.replace("_", " ").value_counts().sort_values()
    figure.add_trace(
        go.Bar(
            x=dropped.tolist(),
            y=dropped.index.tolist(),
            orientation="h",
            marker={"color": "#b3541e"},
            text=dropped.tolist(),
            textposition="auto",
            showlegend=False,
        ),
        2,
        1,
    )
    figure.update_yaxes(automargin=True)
    return figure


def symmetry(frame: pd.DataFrame) -> go.Figure:
    """Share of relaxed crystals above P1 and P-1 by number of atoms, new and from hosts (CHGGen, Fig. 4f)."""
    figure = go.Figure()
    for role, colour in COLOURS.items():
        rows = relaxed(frame)[lambda rows, role=role: rows["role"] == role]
        symmetric = (rows["space_group_number"].fillna(1) > 2).groupby(rows["n_atoms"])
        share, count = symmetric.mean(), symmetric.size()
        figure.add_bar(
            x=share.index.tolist(),
            y=(100 * share).tolist(),
            name=role,
            marker={"color": colour},
            text=count.tolist(),
            hovertemplate="%{x} atoms: %{y:.0f} % of %{text}<extra></extra>",
            textposition="none",
        )
    figure.update_xaxes(title="atoms in the cell", dtick=1)
    figure.update_yaxes(title="above P1 and P-1 (%)", range=[0, 100])
    return figure


def changes(frame: pd.DataFrame) -> go.Figure:
    """Distance of candidates from their minima: energy and largest displacement of an atom (CHGGen, Fig. 4a, b)."""
    figure = make_subplots(1, 2)
    for role, colour in COLOURS.items():
        rows = relaxed(frame)[lambda rows, role=role: rows["role"] == role]
        energy = (rows["energy_initial"] - rows["energy"]).clip(0, 0.6)
        ways = [
            min(2.0, furthest_way(unpack_or_raise(a), unpack_or_raise(b)))
            for a, b in zip(rows["initial"], rows["final"], strict=True)
        ]
        for column, (values, width) in enumerate(((energy, 0.02), (ways, 0.05)), start=1):
            figure.add_trace(
                go.Histogram(
                    x=list(values),
                    name=role,
                    legendgroup=role,
                    showlegend=column == 1,
                    opacity=0.6,
                    marker={"color": colour},
                    xbins={"start": 0, "size": width},
                    histnorm="percent",
                ),
                1,
                column,
            )
    figure.update_xaxes(title="ΔE (eV/atom)", col=1)
    figure.update_xaxes(title="largest displacement (Å)", col=2)
    figure.update_yaxes(title="candidates (%)", col=1)
    figure.update_layout(barmode="overlay")
    return figure


def furthest_way(initial: Crystal, final: Crystal) -> float:
    """Largest displacement of an atom (Å), without the change of the cell and the common drift of all atoms."""
    way = rounded_steps(final.fractional - initial.fractional)
    way -= way.mean(axis=0)
    return float(np.linalg.norm(way @ final.lattice, axis=1).max())
