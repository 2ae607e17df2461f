"""Computations, tables and figures of `hostguide analyse`: local environments and voltages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.analysis.coordination import coordination_statistics
from model.analysis.radial import radial_distribution
from model.analysis.voltage import VoltageStep, voltage_curve
from model.crystals.crystal import Crystal
from model.thermodynamics.reference import read_structures
from model.thermodynamics.stability import Stability
from search.storage.crystal_files import NamedCrystal, read_crystal
from search.storage.rows import Status

FOUND, KNOWN = "#1f6f8b", "#d1495b"


def known_phases(
    paths: Sequence[Path], elements: Sequence[str], say: Callable[[NamedCrystal], None] = lambda read: None
) -> list[Crystal]:
    """Known phases to compare with, from crystal files or from Parquet files of structures.

    From a Parquet file, the phases of the chemical system up to 0.1 eV/atom above the hull are taken.

    Args:
        paths: of the files.
        elements: of the chemical system.
        say: called with each crystal of a file, to tell the user its warnings.

    Raises:
        ValueError: a file does not exist or cannot be read, or there is no such phase.
    """
    found: list[Crystal] = []
    for path in paths:
        if path.suffix != ".parquet":
            read = read_crystal(path)
            say(read)
            found.append(read.crystal)
        elif path.is_file():
            found += read_structures(path, "-".join(sorted(elements)), within=0.1)
        else:
            raise ValueError(f"{path} does not exist")
    if paths and not found:
        raise ValueError(f"no phase of {'-'.join(sorted(elements))} in {', '.join(map(str, paths))}")
    return found


def coordination_table(found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str]) -> pd.DataFrame:
    """Shares of the surroundings of each element, with columns element, neighbours, coordination, found and known.

    ``neighbours`` names them, such as ``6 O + 1 F``; ``coordination`` is their number. ``known`` is NaN without known
    phases of the element.
    """
    rows = []
    for center in elements:
        columns = {}
        for name, crystals in (("found", found), ("known", known)):
            present = [crystal for crystal in crystals if center in crystal.symbols]
            columns[name] = coordination_statistics(present, center) if present else {}
        for shell in sorted({*columns["found"], *columns["known"]}, key=lambda one: (one.number, str(one))):
            shares = {name: share.get(shell, 0.0) if share else np.nan for name, share in columns.items()}
            rows.append({"element": center, "neighbours": str(shell), "coordination": shell.number, **shares})
    return pd.DataFrame(rows)


def draw_radial(found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str], path: Path) -> None:
    """Plot g(r) of every pair of elements, found and known."""
    pairs = list(combinations_with_replacement(sorted(elements), 2))
    figure, axes = new_figure(len(pairs))
    for axis, (one, other) in zip(axes, pairs, strict=False):
        for crystals, colour, label in ((found, FOUND, "found"), (known, KNOWN, "known")):
            if any({one, other} <= set(crystal.symbols) for crystal in crystals):
                radial = radial_distribution(crystals, one, other, width=0.1)
                axis.plot(radial.centers, radial.density, color=colour, label=label, linewidth=1.2)
        axis.set(xlabel="r (Å)", ylabel="g(r)", title=f"{one}–{other}", xlim=(1, 8))
        axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_coordination(table: pd.DataFrame, path: Path) -> None:
    """Plot the numbers of a `coordination_table` as bars."""
    groups = list(table.groupby("element", sort=False))
    figure, axes = new_figure(len(groups))
    for axis, (element, rows) in zip(axes, groups, strict=False):
        shares = rows.groupby("coordination")[["found", "known"]].sum(min_count=1)
        axis.bar(shares.index - 0.2, 100 * shares["found"], 0.4, color=FOUND, label="found")
        if shares["known"].notna().any():
            axis.bar(shares.index + 0.2, 100 * shares["known"], 0.4, color=KNOWN, label="known")
        axis.set(xlabel="coordination number", ylabel="%", title=element)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def new_figure(panels: int) -> tuple[Figure, list]:
    """A figure with a number of panels, three per row, and their axes."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def run_voltages(
    frame: pd.DataFrame,
    guest: str,
    host: str,
    stability: Stability,
    *,
    known: bool = True,
    charge: int | None = None,
) -> list[VoltageStep]:
    """Voltage curve of a host from the relaxed candidates of a run.

    Args:
        frame: results of a run.
        guest: element.
        host: formula unit without the guest.
        stability: hull of the run.
        known: whether to include the phases of the run's reference.
        charge: of the guest's ion, see `voltage_curve`.

    Returns:
        steps of the curve; empty if fewer than two stable phases are known on the line from host to guest.
    """
    relaxed = frame[frame["status"] == Status.RELAXED]
    phases = [*zip(relaxed["formula"], relaxed["energy"], strict=True)]
    if known:
        reference = stability.reference.of_system(stability.elements)
        phases += [*zip(reference["formula"], reference["energy_per_atom"], strict=True)]
    return voltage_curve(phases, guest, host, guest_energy=stability.hull_energy(guest), charge=charge)


def draw_voltages(steps: Sequence[VoltageStep], guest: str, host: str, path: Path, *, ion: str) -> None:
    """Plot a voltage curve; ``ion`` names the guest's ion, whose charge it is for."""
    figure, (axis,) = new_figure(1)
    x = [value for step in steps for value in (step.start, step.end)]
    axis.plot(x, [step.voltage for step in steps for _ in range(2)], color=FOUND)
    axis.set(xlabel=f"x in {guest}$_x${host}", ylabel=f"V vs {guest}/{ion}")
    save_figure(figure, path)
