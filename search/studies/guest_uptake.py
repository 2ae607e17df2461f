"""Uptake of a guest by a host: the best crystal for every guest content, for a host composition or one framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from model.analysis.voltage import VoltageStep, guest_content
from model.crystals.crystal import Crystal
from model.crystals.matching import same_framework
from model.generators.roles import Role
from model.potentials.catalog import PotentialChoice, load_potential
from model.relaxation.relax import RelaxSettings, relax
from model.symmetry.space_group import space_group
from model.thermodynamics.stability import Stability
from search.storage.rows import Status, StoredCrystal, unpack_or_raise
from search.studies.analyse import FOUND, KNOWN, new_figure, run_voltages, save_figure

NAMES_SHOWN = 12  # names of frameworks in a message


class Uptake(NamedTuple):
    """Uptake of a guest by a host.

    Attributes:
        host: its formula unit.
        curve: the best crystal for each guest content, see `uptake_curve`.
        steps: voltage curve; empty if fewer than two stable phases are known.
    """

    host: str
    curve: pd.DataFrame
    steps: list[VoltageStep]


def guest_uptake(
    frame: pd.DataFrame,
    stability: Stability,
    guest: str,
    *,
    potential: PotentialChoice,
    host: str | None = None,
    framework: str | None = None,
    charge: int | None = None,
) -> Uptake:
    """Analyse the uptake of a guest by a host composition or by one framework.

    Args:
        frame: results of a run.
        stability: hull of the run.
        guest: element.
        potential: of the run.
        host: formula unit of a host; all crystals and reference phases that consist of it and the guest are included.
        framework: instead of ``host``, one framework that the run filled, see `fillings_of`; only its fillings and the
            relaxed empty framework are included.
        charge: of the guest's ion, for the voltages, see `voltage_curve`.

    Raises:
        ValueError: neither is given, the run has no such host or framework, or the empty framework does not relax.
    """
    alone = None
    if framework is not None:
        filled, crystal = fillings_of(frame, framework, guest)
        host = crystal.composition.reduced_formula
        relaxed_fillings(filled, guest, host)  # raises before anything is computed if there is none
        empty = empty_host(crystal, filled, stability, potential)
        frame, alone = pd.concat([filled, pd.DataFrame([empty])]), unpack_or_raise(empty["initial"])
    if host is None:
        raise ValueError("guest_uptake needs a host or a framework")
    curve = uptake_curve(frame, guest, host, alone)
    steps = run_voltages(frame, guest, host, stability, known=framework is None, charge=charge)
    return Uptake(host, curve, steps)


def fillings_of(frame: pd.DataFrame, framework: str, guest: str) -> tuple[pd.DataFrame, Crystal]:
    """The candidates made by filling one framework with one guest, and its empty host.

    If another framework was extracted from such a candidate after relaxation, its fillings are included too.

    Args:
        frame: results of a run.
        framework: its name, or the beginning of its name.
        guest: element.

    Raises:
        ValueError: no framework that was filled with this guest alone matches, or several do.
    """
    alone = frame["guests"].map(lambda guests: guests is not None and list(guests) == [guest])
    filled = frame[frame["framework"].notna() & frame["initial"].notna() & alone]
    names = sorted(filled["framework"].unique(), key=lambda name: (not name.startswith("file-"), name))
    chosen = [name for name in names if name == framework] or [name for name in names if name.startswith(framework)]
    if not names:
        raise ValueError(f"--framework {framework}: the run filled no framework with {guest} alone")
    if len(chosen) != 1:
        what = f"{len(chosen)} frameworks match" if chosen else f"no such framework was filled with {guest} alone"
        shown = chosen or names
        more = f" and {len(shown) - NAMES_SHOWN} more" if len(shown) > NAMES_SHOWN else ""
        raise ValueError(f"--framework {framework}: {what}; choose from {', '.join(shown[:NAMES_SHOWN])}{more}")
    rows = filled[filled["framework"] == chosen[0]]
    whole = unpack_or_raise(rows.iloc[0]["initial"])
    count = 0
    while len(rows) > count:
        count = len(rows)
        rows = filled[filled["framework"].isin(rows["framework"]) | filled["parent"].isin(rows["candidate"])]
    return rows, whole.select(np.array(whole.symbols) != guest)


def empty_host(host: Crystal, filled: pd.DataFrame, stability: Stability, potential: PotentialChoice) -> dict[str, Any]:
    """The host without guests, relaxed with the settings of its best filling, as one more row of the fillings.

    Args:
        host: as it was filled.
        filled: candidates, see `fillings_of`.
        stability: hull of the run.
        potential: of the run.

    Raises:
        ValueError: the relaxation does not converge.
    """
    like = filled.iloc[0]
    settings = RelaxSettings.model_validate_json(like["relaxation_settings"]).model_copy(
        update={"energy_ceiling": None}
    )
    (outcome,) = relax([host], load_potential(potential), settings)
    if not outcome.converged:
        raise ValueError(f"the relaxation of the empty host {host.formula} did not converge: {outcome.reason}")
    group = space_group(outcome.final)
    return {
        "candidate": "empty host",
        "status": Status.RELAXED,
        "role": Role.FROM_HOST,
        "formula": host.formula,
        "space_group": group.symbol if group else None,
        "energy": outcome.energy_final,
        "e_d": stability.decomposition(host.composition, outcome.energy_final).e_d,
        "initial": StoredCrystal.of(outcome.initial).record,
        "final": StoredCrystal.of(outcome.final).record,
    }


def relaxed_fillings(frame: pd.DataFrame, guest: str, host: str) -> pd.DataFrame:
    """The relaxed candidates that consist of a host and a guest, with the column x of `uptake_curve`.

    Raises:
        ValueError: the host contains the guest, or there is no such candidate.
    """
    relaxed = frame[(frame["status"] == Status.RELAXED) & frame["e_d"].notna()]
    content = relaxed["formula"].map(lambda formula: guest_content(formula, guest, host))
    relaxed = relaxed.assign(x=content).dropna(subset="x")
    if relaxed.empty:
        raise ValueError(f"the run has no relaxed crystal that consists of {host} and {guest}")
    return relaxed


def uptake_curve(frame: pd.DataFrame, guest: str, host: str, framework: Crystal | None = None) -> pd.DataFrame:
    """The candidate of lowest E_d for each content of a guest, by increasing content.

    Args:
        frame: results of a run.
        guest: element.
        host: formula unit without the guest, for example ``CoO2``.
        framework: with which the host is compared after relaxation, in the same cell or a multiple of it (default: the
            host as it was filled).

    Returns:
        x (guests per formula unit of the host), formula, space_group, e_d (eV/atom), volume (Å³ per formula unit of the
        host), expansion (relative to the volume at x = 0; NaN if that is missing) and candidate. For crystals from a
        host also volume_change (relative, on relaxation) and host_kept: whether pymatgen's StructureMatcher maps the
        relaxed host onto the framework (topotactic), with a root-mean-square displacement of at most 0.3 times the mean
        spacing of atoms.

    Raises:
        ValueError: the host contains the guest, or the run has no relaxed crystal of this host.
    """
    best = relaxed_fillings(frame, guest, host).sort_values(["x", "e_d", "candidate"]).drop_duplicates("x")
    curve = pd.DataFrame([_described(row, guest, host, framework) for row in best.to_dict("records")])
    empty = curve.loc[curve["x"] == 0, "volume"]
    curve["expansion"] = curve["volume"] / (empty.iloc[0] if len(empty) else np.nan) - 1
    return curve


def _described(row: dict[str, Any], guest: str, host: str, framework: Crystal | None) -> dict[str, Any]:
    before, after = unpack_or_raise(row["initial"]), unpack_or_raise(row["final"])
    hosts = [crystal.select(np.array(crystal.symbols) != guest) for crystal in (before, after)]
    units = len(hosts[1]) / Composition(host).num_atoms
    inpainted = row["role"] == Role.FROM_HOST
    return {
        "x": row["x"],
        "formula": row["formula"],
        "space_group": row["space_group"],
        "e_d": row["e_d"],
        "volume": after.volume / units,
        "volume_change": after.volume / before.volume - 1 if inpainted else np.nan,
        "host_kept": same_framework(framework or hosts[0], hosts[1]) if inpainted else None,
        "candidate": row["candidate"],
    }


def draw_uptake(curve: pd.DataFrame, guest: str, host: str, path: Path) -> None:
    """Plot E_d and volume against the guest content."""
    figure, axes = new_figure(2)
    axes[0].plot(curve["x"], 1e3 * curve["e_d"], color=FOUND, marker="o")
    axes[0].axhline(0, color=KNOWN, linewidth=0.8)
    axes[0].set(xlabel=f"x in {guest}$_x${host}", ylabel="lowest $E_d$ (meV/atom)")
    axes[1].plot(curve["x"], curve["volume"], color=FOUND, marker="o")
    axes[1].set(xlabel=f"x in {guest}$_x${host}", ylabel=f"Å³ per {host}")
    save_figure(figure, path)
