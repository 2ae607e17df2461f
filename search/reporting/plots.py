"""Publication-quality figures of a run: those of the report, and the best crystal.

Each function draws one record of `figure_data` with matplotlib, as `figures` does with Plotly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
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
from search.reporting.figure_data import (
    ChangesData,
    HullData,
    HullPhase,
    ProgressData,
    SymmetryData,
    changes_data,
    hull_data,
    progress_data,
    symmetry_data,
)
from search.reporting.figures import COLOURS
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
    hull = hull_data(frame, Stability(load_reference(config, run), config.compositions.elements))
    drawings = {"hull": draw_hull(hull)} if hull else {}
    drawings |= {
        "progress": draw_progress(progress_data(frame)),
        "symmetry": draw_symmetry(symmetry_data(frame)),
        "changes": draw_changes(changes_data(frame)),
    }
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


def draw_hull(data: HullData) -> Figure:
    """Formation energies of a binary system or E_d of a ternary one."""
    return _line(data) if len(data.elements) == 2 else _triangle(data)


def _line(data: HullData) -> Figure:
    """The hull as squares and line, candidates as dots."""
    figure, (axes,) = _panels()
    axes.plot(*_xy(data.stable), "s-", color="0.25", markersize=4, label=data.stable_label, zorder=3)
    for phase in data.stable:
        side, offset = 0, (0, 9)
        if 0 < phase.fractions[-1] < 1:
            side, line = data.name_place(phase)
            offset = (5 * side, -9 * max(line, side == 0) - 3)
        axes.annotate(
            latexify(phase.formula),
            (phase.fractions[-1], phase.energy),
            textcoords="offset points",
            xytext=offset,
            va="center",
            size=7,
            ha=("center", "left", "right")[side],
        )
    axes.scatter(*_xy(data.above), s=10, label=data.above_label, facecolors="none", edgecolors="0.4", marker="s")
    for role, colour in COLOURS.items():
        some = [one for one in data.found if one.role == role]
        axes.scatter(*_xy(some), s=10, label=role, color=colour, alpha=0.65, linewidths=0)
        judged = [one for one in some if one.e_d_range]
        if judged:
            bars = np.transpose([one.bars for one in judged])
            axes.errorbar(*_xy(judged), yerr=bars, fmt="none", ecolor=colour, elinewidth=0.6, capsize=1.5)
    lowest = min(phase.energy for phase in (*data.stable, *data.above, *data.found))
    axes.set(xlabel=data.x_label, ylabel=data.y_label, ylim=(1.2 * lowest - 0.02, 0.1))
    axes.legend(loc="lower right")
    return figure


def _xy(phases: Sequence[HullPhase]) -> tuple[list[float], list[float]]:
    return [phase.fractions[-1] for phase in phases], [phase.energy for phase in phases]


def _triangle(data: HullData) -> Figure:
    """The hull seen from above, with the best candidates on top."""
    figure, (axes,) = _panels()
    corners = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])  # first element on top, second left, third right

    def xy(phases: Sequence[HullPhase]) -> tuple[np.ndarray, np.ndarray]:
        x, y = (np.reshape([phase.fractions for phase in phases], (-1, 3)) @ corners).T
        return x, y

    axes.plot(*corners[[0, 1, 2, 0]].T, color="0.2", linewidth=0.8)
    for pair in data.tie_lines:
        axes.plot(*xy(pair), color="0.6", linewidth=0.6)
    axes.scatter(*xy(data.stable), s=14, marker="s", color="0.25", zorder=3)
    for phase, *at in zip(data.stable, *xy(data.stable), strict=True):
        axes.annotate(
            phase.formula, tuple(at), textcoords="offset points", xytext=(0, 4), ha="center", size=6, zorder=4
        )
    best = sorted(data.found, key=lambda one: -one.e_d)
    low, high = data.e_d_range
    e_d = [1e3 * one.e_d for one in best]
    dots = axes.scatter(*xy(best), s=10, label="found", c=e_d, vmin=low, vmax=high, zorder=2)
    figure.colorbar(dots, ax=axes, label="E_d (meV/atom)", shrink=0.7)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def draw_progress(data: ProgressData) -> Figure:
    """Best E_d so far of each composition against CPU time."""
    figure, (axes,) = _panels()
    for curve in data.curves:
        axes.step(curve.minutes, curve.e_d, where="post", label=curve.formula)
    axes.set(xlabel=data.x_label, ylabel=data.y_label, ylim=data.e_d_range, xlim=(0, None))
    if data.curves:
        axes.legend(ncols=2)
    return figure


def draw_symmetry(data: SymmetryData) -> Figure:
    """Share of relaxed crystals above P1 and P-1 by number of atoms (CHGGen, Figs. 4f and 6)."""
    figure, (axes,) = _panels()
    for shift, (role, shares) in zip((-0.2, 0.2), data.roles.items(), strict=True):
        axes.bar(np.array(shares.atoms, dtype=float) + shift, shares.percent, 0.4, color=COLOURS[role], label=role)
    axes.set(xlabel=data.x_label, ylabel=data.y_label, ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def draw_changes(data: ChangesData) -> Figure:
    """Change of energy and largest displacement of an atom during relaxation (CHGGen, Fig. 4a, b)."""
    figure, panels = _panels(2)
    for axes, histogram in zip(panels, (data.energy, data.displacement), strict=True):
        for role, values in histogram.values.items():
            if values:
                edges = np.arange(0, max(values) + 2 * histogram.bin_width, histogram.bin_width).tolist()
                share = np.full(len(values), 100 / len(values))
                axes.hist(values, edges, weights=share, color=COLOURS[role], alpha=0.6, label=role)
        axes.set(xlabel=histogram.label)
    panels[0].set(ylabel=data.y_label)
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
