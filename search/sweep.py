"""How a host takes up a guest: the best crystal of a run for every guest content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition

from model.analysis import guest_content
from search.analyse import FOUND, KNOWN, new_figure, save_figure
from search.results import required


def guest_sweep(frame: pd.DataFrame, guest: str, host: str) -> pd.DataFrame:
    """The candidate of lowest E_d for each content of a guest, by increasing content.

    Args:
        frame: results of a run.
        guest: element.
        host: formula unit without the guest, for example ``CoO2``.

    Returns:
        x (guests a formula unit of the host), formula, space_group, e_d (eV/atom), volume (Å³ a formula unit of the
        host), candidate, and of inpainted crystals volume_change (relative, while relaxing) and host_kept: whether
        pymatgen's StructureMatcher maps the host after relaxation onto the framework that was filled (topotactic).

    Raises:
        ValueError: the host holds the guest, or the run has no relaxed crystal of this host.
    """
    relaxed = frame[(frame["status"] == "relaxed") & frame["e_d"].notna()]
    content = relaxed["formula"].map(lambda formula: guest_content(formula, guest, host))
    relaxed = relaxed.assign(x=content).dropna(subset="x")
    if relaxed.empty:
        raise ValueError(f"the run has no relaxed crystal made of {host} and {guest}")
    best = relaxed.sort_values(["x", "e_d", "candidate"]).drop_duplicates("x")
    return pd.DataFrame([_described(row, guest, host) for row in best.to_dict("records")])


def _described(row: dict[str, Any], guest: str, host: str) -> dict[str, Any]:
    before, after = required(row["initial"]), required(row["final"])
    hosts = [crystal.select(np.array(crystal.symbols) != guest) for crystal in (before, after)]
    units = len(hosts[1]) / Composition(host).num_atoms
    inpainted = row["stage"] == "inpainted"
    return {
        "x": row["x"],
        "formula": row["formula"],
        "space_group": row["space_group"],
        "e_d": row["e_d"],
        "volume": after.volume / units,
        "volume_change": after.volume / before.volume - 1 if inpainted else np.nan,
        "host_kept": StructureMatcher().fit(hosts[0].to_pymatgen(), hosts[1].to_pymatgen()) if inpainted else None,
        "candidate": row["candidate"],
    }


def draw_sweep(sweep: pd.DataFrame, guest: str, host: str, path: Path) -> None:
    """E_d and volume over the guest content."""
    figure, axes = new_figure(2)
    axes[0].plot(sweep["x"], 1e3 * sweep["e_d"], color=FOUND, marker="o")
    axes[0].axhline(0, color=KNOWN, linewidth=0.8)
    axes[0].set(xlabel=f"x in {guest}$_x${host}", ylabel="$E_d$ of the best (meV/atom)")
    axes[1].plot(sweep["x"], sweep["volume"], color=FOUND, marker="o")
    axes[1].set(xlabel=f"x in {guest}$_x${host}", ylabel=f"Å³ a {host}")
    save_figure(figure, path)
