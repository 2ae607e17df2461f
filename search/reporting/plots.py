"""Publication-quality figures of a run: those of the report, and the best crystal.

Each function takes a figure of `search.reporting.figures` and draws its data with matplotlib, so that both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from ase.data import chemical_symbols
from ase.data.colors import jmol_colors
from ase.visualize.plot import plot_atoms
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.util.string import latexify

from model.crystals.crystal import Crystal
from model.thermodynamics.stability import Stability
from search.config import Tuning
from search.config_file import load_config
from search.planning.prepare import load_reference
from search.reporting import figures
from search.reporting.tuning_plots import plot_tuning
from search.storage.cif import conventional_cell
from search.storage.paths import RunPath
from search.storage.ranking import rank
from search.storage.results import load_results
from search.storage.rows import unpack_or_raise

Format = Literal["png", "svg", "pdf"]
WIDTH, HEIGHT = 3.4, 2.6  # inches: one journal column
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "savefig.dpi": 300,
    "svg.fonttype": "none",  # text stays editable
    "svg.hashsalt": "hostguide",  # makes files reproducible
    "pdf.fonttype": 42,
}


@plt.style.context(STYLE)
def plot_run(run: RunPath, out: Path, kind: Format = "png") -> list[Path]:
    """Draw hull (two or three elements), progress, symmetry, changes on relaxation and the best crystal.

    Args:
        run: folder of the run.
        out: folder for the figures.
        kind: file format; a panel is one journal column wide (86 mm).

    Returns:
        The files written.

    Raises:
        ValueError: the run has no relaxed crystal.
    """
    frame = load_results(run, structures=False)
    config = load_config(run / "config.yaml")
    best = rank(frame, top=1)
    if best.empty:
        raise ValueError(f"{run} contains no relaxed crystal yet")
    out.mkdir(parents=True, exist_ok=True)
    hull = figures.hull(frame, Stability(load_reference(config), config.compositions.elements))
    drawings = {
        "progress": draw_progress(figures.progress(frame)),
        "symmetry": draw_symmetry(figures.symmetry(frame)),
        "changes": draw_changes(figures.changes(frame)),
    }
    if hull is not None:
        drawings = {"hull": draw_triangle(hull) if hull.layout.ternary.aaxis.title.text else draw_line(hull)} | drawings
    paths = [_save(drawing, out / f"{name}.{kind}") for name, drawing in drawings.items()]
    row = best.iloc[0]
    title = f"{row['formula']}, {row['space_group']}, E_d {1e3 * row['e_d']:+.1f} meV/atom"
    paths.append(draw_crystal(unpack_or_raise(row["final"]), title, out / f"best.{kind}"))
    return paths + (plot_tuning(config, run, out) if config.tuning != Tuning() else [])


def _save(figure: Figure, path: Path) -> Path:
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    figure.savefig(path, metadata=metadata, bbox_inches="tight")
    plt.close(figure)
    return path


def _panels(columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure, axes = plt.subplots(1, columns, figsize=(WIDTH * columns, HEIGHT), layout="constrained", squeeze=False)
    return figure, axes[0]


def draw_line(hull: go.Figure) -> Figure:
    """Formation energies of a binary system: the hull as squares and line, candidates as dots."""
    figure, (axes,) = _panels()
    for trace in hull.data:
        x, y = np.asarray(trace.x, dtype=float), np.asarray(trace.y, dtype=float)
        if "lines" in trace.mode:
            axes.plot(x, y, "s-", color="0.25", markersize=4, label=trace.name, zorder=3)
            for at, energy, name in zip(x, y, trace.text, strict=True):
                side, offset = 0, (0, 9)
                if 0 < at < 1:
                    side, line = figures.name_place(at, list(zip(x, y, strict=True)))
                    offset = (5 * side, -9 * max(line, side == 0) - 3)
                axes.annotate(
                    latexify(name),
                    (at, energy),
                    textcoords="offset points",
                    xytext=offset,
                    va="center",
                    size=7,
                    ha=("center", "left", "right")[side],
                )
        else:
            known = trace.marker.symbol == "square-open"
            style: dict[str, Any] = {"facecolors": "none", "edgecolors": "0.4", "marker": "s"}
            if not known:
                style = {"color": trace.marker.color, "alpha": 0.65, "linewidths": 0}
            axes.scatter(x, y, s=10, label=trace.name, **style)
    lowest = min(min(trace.y) for trace in hull.data if len(trace.y))
    axes.set(xlabel=hull.layout.xaxis.title.text, ylabel=hull.layout.yaxis.title.text, ylim=(1.2 * lowest - 0.02, 0.1))
    axes.legend(loc="lower right")
    return figure


def draw_triangle(hull: go.Figure) -> Figure:
    """E_d in the composition triangle of a ternary system, best candidates on top."""
    figure, (axes,) = _panels()
    corners = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])  # a on top, b left, c right
    axes.plot(*corners[[0, 1, 2, 0]].T, color="0.2", linewidth=0.8)
    for trace in hull.data:
        x, y = (np.column_stack([trace.a, trace.b, trace.c]).astype(float) @ corners).T
        if trace.mode == "lines":
            axes.plot(x, y, color="0.6", linewidth=0.6)
        elif "text" in trace.mode:
            axes.scatter(x, y, s=14, marker="s", color="0.25", zorder=3)
            for *point, name in zip(x, y, trace.text, strict=True):
                axes.annotate(
                    name, tuple(point), textcoords="offset points", xytext=(0, 4), ha="center", size=6, zorder=4
                )
        else:
            scale = trace.marker
            dots = axes.scatter(x, y, s=10, label=trace.name, c=scale.color, vmin=scale.cmin, vmax=scale.cmax, zorder=2)
            figure.colorbar(dots, ax=axes, label="E_d (meV/atom)", shrink=0.7)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def draw_progress(progress: go.Figure) -> Figure:
    """Best E_d so far of each composition against CPU time."""
    figure, (axes,) = _panels()
    for curve in progress.data:
        axes.step(curve.x, curve.y, where="post", label=curve.name)
    y = progress.layout.yaxis
    axes.set(xlabel=progress.layout.xaxis.title.text, ylabel=y.title.text, ylim=y.range, xlim=(0, None))
    if progress.data:
        axes.legend(ncols=2)
    return figure


def draw_symmetry(symmetry: go.Figure) -> Figure:
    """Share of relaxed crystals above P1 and P-1 by number of atoms (CHGGen, Figs. 4f and 6)."""
    figure, (axes,) = _panels()
    for shift, bars in zip((-0.2, 0.2), symmetry.data, strict=True):
        axes.bar(np.array(bars.x, dtype=float) + shift, bars.y, 0.4, color=bars.marker.color, label=bars.name)
    y = symmetry.layout.yaxis
    axes.set(xlabel=symmetry.layout.xaxis.title.text, ylabel=y.title.text, ylim=y.range)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def draw_changes(changes: go.Figure) -> Figure:
    """Change of energy and largest displacement of an atom during relaxation (CHGGen, Fig. 4a, b)."""
    figure, panels = _panels(2)
    for trace in changes.data:
        axes = panels[1 if trace.xaxis == "x2" else 0]
        values, size = np.asarray(trace.x, dtype=float), trace.xbins.size
        if len(values):
            edges = np.arange(0, values.max() + 2 * size, size).tolist()
            share = np.full(len(values), 100 / len(values))
            axes.hist(values, edges, weights=share, color=trace.marker.color, alpha=trace.opacity, label=trace.name)
    panels[0].set(xlabel=changes.layout.xaxis.title.text, ylabel=changes.layout.yaxis.title.text)
    panels[1].set(xlabel=changes.layout.xaxis2.title.text)
    panels[0].legend()
    return figure


def draw_crystal(crystal: Crystal, title: str, path: Path) -> Path:
    """Draw the conventional cell, repeated to about 10 Å, with a legend of the elements."""
    atoms = AseAtomsAdaptor.get_atoms(conventional_cell(crystal))
    atoms = atoms.repeat([max(1, round(10 / length)) for length in atoms.cell.lengths()])
    figure, axes = plt.subplots(figsize=(WIDTH, WIDTH))
    plot_atoms(atoms, axes, radii=0.6, rotation="-80x,15y,5z")
    for number in sorted(set(atoms.numbers)):
        axes.scatter([], [], s=60, color=jmol_colors[number], edgecolor="black", label=chemical_symbols[number])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_axis_off()
    axes.set_title(title)
    return _save(figure, path)
