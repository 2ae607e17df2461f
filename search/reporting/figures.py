"""Plotly figures for the report: each function draws one record of `figure_data`."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from pymatgen.util.string import htmlify

from model.generators.roles import Role
from search.reporting.figure_data import (
    ChangesData,
    FunnelData,
    HullCandidate,
    HullData,
    HullPhase,
    ProgressData,
    SymmetryData,
)

COLOURS = {Role.NEW: "#2f6fde", Role.FROM_HOST: "#e8710a"}
REFERENCE = "#7d8590"


def hull(data: HullData) -> go.Figure:
    """Formation energies of a binary system or E_d of a ternary one."""
    return _line(data) if len(data.elements) == 2 else _triangle(data)


def _line(data: HullData) -> go.Figure:
    figure = go.Figure()
    figure.add_scatter(
        **_xy(data.stable),
        mode="lines+markers",
        name=data.stable_label,
        marker={"symbol": "square", "size": 8},
        line={"color": REFERENCE},
        hovertemplate="%{text}<extra>known</extra>",
    )
    figure.add_scatter(
        **_xy(data.above),
        mode="markers",
        name=data.above_label,
        marker={"symbol": "square-open", "size": 7, "color": REFERENCE},
        hovertemplate="%{text}<extra>known</extra>",
    )
    for role, colour in COLOURS.items():
        some = [one for one in data.found if one.role == role]
        figure.add_scatter(
            **_xy(some) | _hover(some),
            mode="markers",
            name=role,
            marker={"color": colour, "size": 7, "opacity": 0.65},
            error_y=_bars(some),
        )
    _name_phases(figure, data)
    lowest = min(phase.energy for phase in data.stable)
    figure.update_xaxes(title=data.x_label, range=[-0.03, 1.03])
    figure.update_yaxes(title=data.y_label, range=[lowest * 1.35 - 0.03, 0.15])
    return figure


def _xy(phases: Sequence[HullPhase]) -> dict[str, list]:
    return {
        "x": [phase.fractions[-1] for phase in phases],
        "y": [phase.energy for phase in phases],
        "text": [phase.formula for phase in phases],
    }


def _bars(found: Sequence[HullCandidate]) -> dict[str, object]:
    """Error bars from the lowest to the highest E_d that the potentials give."""
    below, above = zip(*(one.bars for one in found), strict=True) if found else ((), ())
    judged = any(one.e_d_range for one in found)
    return {"array": above, "arrayminus": below, "symmetric": False, "visible": judged, "thickness": 1, "width": 3}


def _name_phases(figure: go.Figure, data: HullData) -> None:
    for phase in data.stable:
        at = phase.fractions[-1]
        place: dict[str, object] = {"showarrow": False, "yshift": 12}
        if 0 < at < 1:
            side, line = data.name_place(phase)
            place = {"ax": 34 * side, "ay": 16 + 16 * line}
        figure.add_annotation(
            x=at,
            y=phase.energy,
            text=htmlify(phase.formula),
            arrowwidth=0.7,
            arrowhead=0,
            arrowcolor=REFERENCE,
            standoff=4,
            **place,
        )


def _triangle(data: HullData) -> go.Figure:
    figure = go.Figure()
    for pair in data.tie_lines:
        figure.add_scatterternary(
            **_abc(pair),
            mode="lines",
            line={"color": REFERENCE, "width": 1},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.add_scatterternary(
        **_abc(data.stable),
        text=[phase.formula for phase in data.stable],
        mode="markers+text",
        textposition="top center",
        name=data.stable_label,
        marker={"symbol": "square", "size": 8, "color": REFERENCE},
        hovertemplate="%{text}<extra>known</extra>",
    )
    best = sorted(data.found, key=lambda one: -one.e_d)  # the best on top
    low, high = data.e_d_range
    figure.add_scatterternary(
        **_abc(best),
        **_hover(best),
        mode="markers",
        name="found",
        marker={
            "color": [1e3 * one.e_d for one in best],
            "size": 9,
            "cmin": low,
            "cmax": high,
            "colorscale": "Viridis",
            "colorbar": {"title": "E_d<br>meV/atom", "thickness": 12},
            "showscale": True,
        },
    )
    figure.update_ternaries({f"{axis}axis_title": element for axis, element in zip("abc", data.elements, strict=True)})
    figure.update_layout(legend={"y": -0.1})
    return figure


def _abc(phases: Sequence[HullPhase]) -> dict[str, list[float]]:
    return {axis: [phase.fractions[i] for phase in phases] for i, axis in enumerate("abc")}


def _hover(found: Sequence[HullCandidate]) -> dict[str, object]:
    """Text shown when hovering over a point, and the candidate that a click opens."""
    return {
        "customdata": [one.candidate for one in found],
        "text": [
            f"{one.formula}, {one.space_group}, E_d {1e3 * one.e_d:+.1f} meV/atom{_range_text(one)}" for one in found
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _range_text(one: HullCandidate) -> str:
    return "" if one.e_d_range is None else " ({:+.1f} to {:+.1f})".format(*(1e3 * value for value in one.e_d_range))


def progress(data: ProgressData) -> go.Figure:
    """Best E_d so far of each composition against CPU time."""
    figure = go.Figure()
    for curve in data.curves:
        figure.add_scatter(x=curve.minutes, y=curve.e_d, name=curve.formula, mode="lines", line={"shape": "hv"})
    figure.update_xaxes(title=data.x_label, rangemode="tozero")
    figure.update_yaxes(title=data.y_label, range=data.e_d_range)
    return figure


def funnel(data: FunnelData) -> go.Figure:
    """How many candidates are left after each step, and the reasons for dropping the others."""
    figure = make_subplots(
        2, 1, specs=[[{"type": "funnel"}], [{"type": "bar"}]], row_heights=[0.65, 0.35], vertical_spacing=0.08
    )
    figure.add_trace(
        go.Funnel(y=list(data.left), x=list(data.left.values()), marker={"color": "#2f6fde"}, showlegend=False), 1, 1
    )
    dropped = list(data.dropped.values())
    figure.add_trace(
        go.Bar(
            x=dropped,
            y=list(data.dropped),
            orientation="h",
            marker={"color": "#b3541e"},
            text=dropped,
            textposition="auto",
            showlegend=False,
        ),
        2,
        1,
    )
    figure.update_yaxes(automargin=True)
    return figure


def symmetry(data: SymmetryData) -> go.Figure:
    """Share of relaxed crystals above P1 and P-1 by number of atoms, new and from hosts."""
    figure = go.Figure()
    for role, shares in data.roles.items():
        figure.add_bar(
            x=shares.atoms,
            y=shares.percent,
            name=role,
            marker={"color": COLOURS[role]},
            text=shares.crystals,
            hovertemplate="%{x} atoms: %{y:.0f} % of %{text}<extra></extra>",
            textposition="none",
        )
    figure.update_xaxes(title=data.x_label, dtick=1)
    figure.update_yaxes(title=data.y_label, range=[0, 100])
    return figure


def changes(data: ChangesData) -> go.Figure:
    """Histograms of the changes of energy and positions during relaxation, new and from hosts."""
    figure = make_subplots(1, 2)
    for column, histogram in enumerate((data.energy, data.displacement), start=1):
        for role, values in histogram.values.items():
            figure.add_trace(
                go.Histogram(
                    x=values,
                    name=role,
                    legendgroup=role,
                    showlegend=column == 1,
                    opacity=0.6,
                    marker={"color": COLOURS[role]},
                    xbins={"start": 0, "size": histogram.bin_width},
                    histnorm="percent",
                ),
                1,
                column,
            )
        figure.update_xaxes(title=histogram.label, col=column)
    figure.update_yaxes(title=data.y_label, col=1)
    figure.update_layout(barmode="overlay")
    return figure
