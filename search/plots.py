"""Pictures of a run: the convex hull with what was found, and the best crystal."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from ase.data import chemical_symbols
from ase.data.colors import jmol_colors
from ase.visualize.plot import plot_atoms
from matplotlib.axes import Axes
from pymatgen.core import Composition
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from model.crystal import Crystal
from model.stability import Stability
from model.symmetry import EXACT, refine
from search.config import SearchConfig, load_config
from search.prepare import load_reference
from search.results import load_results, required
from search.storage import RunPath
from search.tables import rank
from search.tune_command import plot_tuning
from search.tuning import Tuning


def plot_run(run: RunPath, out: Path) -> list[Path]:
    """Write best.png and, for a binary system, hull.png; returns their paths.

    Raises:
        ValueError: the run has no relaxed crystal.
    """
    frame = load_results(run, structures=False)
    config = load_config(run / "config.yaml")
    best = rank(frame, top=1)
    if best.empty:
        raise ValueError(f"{run} holds no relaxed crystal yet")
    out.mkdir(parents=True, exist_ok=True)
    row = best.iloc[0]
    title = f"{row['formula']}, {row['space_group']}, E_d {1e3 * row['e_d']:+.0f} meV/atom"
    paths = [draw_crystal(required(row["final"]), title, out / "best.png")]
    if config.tuning != Tuning():
        paths += plot_tuning(config, run, out)
    binary = len(config.compositions.elements) == 2
    return [_hull(frame, config, out / "hull.png"), *paths] if binary else paths


def _hull(frame: pd.DataFrame, config: SearchConfig, path: Path) -> Path:
    stability = Stability(load_reference(config), config.compositions.elements)
    diagram, other = stability.diagram, max(config.compositions.elements, key=lambda e: Composition(e).elements[0].X)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    stable = sorted(
        (e.composition.get_atomic_fraction(other), diagram.get_form_energy_per_atom(e), e.composition.reduced_formula)
        for e in diagram.stable_entries
    )
    x, y, _ = zip(*stable, strict=True)
    axes.plot(x, y, "s-", color="0.25", label="reference hull", zorder=3)
    for index, (at, energy, name) in enumerate(stable):
        below = -14 - 12 * (index % 2)  # neighbours on two lines
        axes.annotate(name, (at, energy), textcoords="offset points", xytext=(0, below), ha="center", fontsize=8)
    for stage, colour in (("generated", "tab:blue"), ("inpainted", "tab:orange")):
        _points(
            axes, frame[(frame["status"] == "relaxed") & (frame["stage"] == stage)], stability, other, stage, colour
        )
    axes.set(xlabel=f"fraction of {other}", ylabel="formation energy (eV/atom)", ylim=(min(y) * 1.15 - 0.02, 0.1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)
    return path


def _points(axes: Axes, rows: pd.DataFrame, stability: Stability, other: str, label: str, colour: str) -> None:
    compositions = [Composition(formula) for formula in rows["formula"]]
    x = [composition.get_atomic_fraction(other) for composition in compositions]
    hull = [stability.diagram.get_hull_energy_per_atom(c) - _elements(stability, c) for c in compositions]
    axes.scatter(x, rows["e_d"] + hull, s=14, alpha=0.6, color=colour, label=label, linewidths=0)


def _elements(stability: Stability, composition: Composition) -> float:
    """Energy per atom of the elements mixed in this ratio, eV/atom."""
    references = stability.diagram.el_refs
    return sum(composition.get_atomic_fraction(e) * entry.energy_per_atom for e, entry in references.items())


def draw_crystal(crystal: Crystal, title: str, path: Path) -> Path:
    """Draw the conventional cell, repeated to about 10 Å, with the elements' colours named."""
    refined = refine(crystal)
    structure = (refined.parent if refined else crystal).to_pymatgen()
    atoms = AseAtomsAdaptor.get_atoms(
        SpacegroupAnalyzer(structure, symprec=EXACT).get_conventional_standard_structure()
    )
    atoms = atoms.repeat([max(1, round(10 / length)) for length in atoms.cell.lengths()])
    figure, axes = plt.subplots(figsize=(5, 5))
    plot_atoms(atoms, axes, radii=0.6, rotation="-80x,15y,5z")
    for number in sorted(set(atoms.numbers)):
        axes.scatter([], [], s=120, color=jmol_colors[number], edgecolor="black", label=chemical_symbols[number])
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_axis_off()
    axes.set_title(title)
    figure.savefig(path, dpi=160, bbox_inches="tight")
    plt.close(figure)
    return path
