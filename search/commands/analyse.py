"""`hostguide analyse` as a person sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Element
from rich.console import Console
from rich.table import Table

from model.analysis.migration import BarrierSettings
from model.analysis.voltage import VoltageStep
from model.crystals.crystal import Crystal
from model.crystals.voids import void_sites
from model.potentials.chgnet.potential import CHGNetPotential
from model.symmetry.space_group import refine
from model.thermodynamics.stability import Stability
from search.planning.prepare import run_stability
from search.storage.cif import write_cif
from search.storage.crystal_files import read_host
from search.storage.paths import RunPath, is_run
from search.storage.ranking import rank
from search.storage.results import load_results, required
from search.studies.analyse import (
    NARROWEST,
    Ways,
    coordination_table,
    draw_barriers,
    draw_coordination,
    draw_radial,
    draw_voltages,
    known_phases,
    run_voltages,
    ways_through,
)
from search.studies.guest_uptake import draw_sweep, empty_host, fillings_of, guest_sweep, relaxed_fillings


def analyse(
    console: Console,
    source: RunPath,
    *,
    guest: str | None,
    host: str | None,
    framework: str | None,
    against: Sequence[Path],
    barriers: BarrierSettings | None,
    equal_sites: bool,
    max_length: float,
    top: int,
    out: Path,
) -> None:
    """Analyse a run's best crystals or one crystal; tables go to the console, tables and pictures to ``out``.

    Args:
        console: where tables go.
        source: folder of a run, or a crystal file.
        guest: element whose ways are looked for.
        host: of a run, formula unit of the host for a voltage curve.
        framework: of a run, the one that it was filled to, for a voltage curve of its own.
        against: known phases to compare with.
        barriers: how to compute the barriers of hops; none are when left out.
        equal_sites: join the sites that the host's symmetry makes of the guests'.
        max_length: Å, longest hop.
        top: of a run, how many of the best crystals.
        out: folder of tables and pictures.

    Raises:
        ValueError: bad input.
    """
    torch.set_num_threads(1)
    if guest is not None and not Element.is_valid_symbol(guest):
        raise ValueError(f"--guest {guest!r} is not an element; use symbols such as Li")
    if guest is None and (barriers or equal_sites or host or framework):
        raise ValueError("say with --guest which element moves")
    frame = load_results(source, structures=False) if is_run(source) else None
    if host and framework:
        raise ValueError(f"give --host or --framework, not both: {framework} has a host")
    if frame is None and (host or framework):
        raise ValueError("--host and --framework, for the voltage curve, need the folder of a run")
    uptake = None
    if frame is not None and guest and (host or framework):
        uptake = _uptake(frame, run_stability(source), guest, host, framework)
    crystals = _crystals(frame, source, top)
    elements = sorted({symbol for _, crystal in crystals for symbol in crystal.symbols})
    known = known_phases(against, elements)
    _surroundings(console, [crystal for _, crystal in crystals], known, elements, out)
    if frame is None:
        _voids(console, crystals[0][1], guest)
    if guest is not None:
        _ways(console, crystals, guest, barriers, equal_sites, max_length, out)
    if uptake is not None and guest is not None:
        _show_uptake(console, uptake, guest, out, "" if framework is None else f"-{framework}")
    console.print(f"Tables and pictures: {out}", soft_wrap=True)


class _Uptake(NamedTuple):
    """How a host takes up a guest."""

    host: str  # formula unit
    sweep: pd.DataFrame
    steps: list[VoltageStep]


def _uptake(frame: pd.DataFrame, stability: Stability, guest: str, host: str | None, framework: str | None) -> _Uptake:
    """Of a composition by whatever the run and its reference know, or of one framework alone."""
    alone = None
    if framework is not None:
        filled, crystal = fillings_of(frame, framework, guest)
        host = crystal.composition.reduced_formula
        relaxed_fillings(filled, guest, host)  # refuses what has none before anything is computed
        empty = empty_host(crystal, filled, stability)
        frame, alone = pd.concat([filled, pd.DataFrame([empty])]), required(empty["final"])
    assert host is not None
    sweep = guest_sweep(frame, guest, host, alone)
    return _Uptake(host, sweep, run_voltages(frame, guest, host, stability, known=framework is None))


def _show_uptake(console: Console, uptake: _Uptake, guest: str, out: Path, suffix: str) -> None:
    host, sweep, steps = uptake
    console.print(_sweep_table(sweep, guest, host))
    sweep.to_csv(out / f"sweep{suffix}.csv", index=False)
    draw_sweep(sweep, guest, host, out / f"sweep{suffix}.png")
    picture = out / f"voltage{suffix}.png"
    if not steps:
        picture.unlink(missing_ok=True)  # of an earlier time
        console.print(f"No voltages: not two stable phases of {guest} in {host} are known.")
        return
    console.print(_voltage_table(steps, guest))
    draw_voltages(steps, guest, host, picture)


def _crystals(frame: pd.DataFrame | None, source: RunPath, top: int) -> list[tuple[str, Crystal]]:
    if frame is None:
        assert isinstance(source, Path)
        crystal = read_host(source)
        return [(crystal.formula, crystal)]
    best = rank(frame, top=top)
    if best.empty:
        raise ValueError(f"{source} has no relaxed candidate yet")
    names = best["formula"] + " " + best["candidate"]
    return [(name, _symmetric(required(final))) for name, final in zip(names, best["final"], strict=True)]


def _symmetric(crystal: Crystal) -> Crystal:
    """Moved onto its space group, so that what is equal counts as equal."""
    refined = refine(crystal)
    return refined.crystal if refined else crystal


def _surroundings(
    console: Console, found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str], out: Path
) -> None:
    table = coordination_table(found, known, elements)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "coordination.csv", index=False)
    draw_radial(found, known, elements, out / "radial.png")
    draw_coordination(table, out / "coordination.png")
    shown = Table(title=f"Coordination in {len(found)} crystals", title_justify="left")
    for name in ("element", "neighbours", "number", "found %", f"known % ({len(known)} phases)"[: 99 if known else 7]):
        shown.add_column(name, justify="left" if name in ("element", "neighbours") else "right")
    for row in table.itertuples():
        share = "" if pd.isna(row.known) else f"{100 * row.known:.0f}"
        shown.add_row(row.element, row.neighbours, str(row.coordination), f"{100 * row.found:.0f}", share)
    console.print(shown)


def _voids(console: Console, crystal: Crystal, guest: str | None) -> None:
    host = crystal if guest is None else crystal.select(np.array(crystal.symbols) != guest)
    table = Table(title=f"Voids of {host.formula} wider than {NARROWEST} Å", title_justify="left")
    for name in ("x", "y", "z", "radius Å"):
        table.add_column(name, justify="right")
    for void in void_sites(host, min_radius=NARROWEST)[:12]:
        table.add_row(*(f"{x:.3f}" for x in void.fractional), f"{void.radius:.2f}")
    console.print(table)


def _ways(
    console: Console,
    crystals: Sequence[tuple[str, Crystal]],
    guest: str,
    barriers: BarrierSettings | None,
    equal_sites: bool,
    max_length: float,
    out: Path,
) -> None:
    potential = CHGNetPotential() if barriers else None
    table = Table(title=f"Ways of {guest}", title_justify="left")
    for name in (
        "crystal",
        "hop",
        "length Å",
        "times",
        "gate Å",
        *(["barrier eV"] if barriers else []),
        "gets through",
    ):
        table.add_column(name, justify="left" if name in ("crystal", "gets through") else "right")
    rows, profiles = [], {}
    for name, crystal in crystals:
        if set(crystal.symbols) == {guest}:
            continue
        ways = ways_through(
            crystal, guest, max_length=max_length, potential=potential, settings=barriers, equal_sites=equal_sites
        )
        rows += _add(table, name, ways, len(crystals) == 1)
        for index, found in ways.barriers.items():
            profiles[f"{name} {index}"] = found
            for position, image in enumerate(found.images):
                folder = out / "hops" / f"{name.replace(' ', '_')}-{index}"
                folder.mkdir(parents=True, exist_ok=True)
                write_cif(image, folder / f"{position:02d}.cif")
        for problem in ways.problems:
            console.print(f"{name}: {problem}", soft_wrap=True)
    pd.DataFrame(rows).to_csv(out / "hops.csv", index=False)
    if profiles:
        draw_barriers(profiles, out / "barriers.png")
    console.print(table)


def _add(table: Table, name: str, ways: Ways, every_hop: bool) -> list[dict[str, object]]:
    """Rows of one crystal for the table, all its hops or the shortest, and for the file."""
    through = [f"{d}D with hops of {length:.2f} Å" for d, length in ways.lengths.items()] or ["no"]
    through += [f"{d}D over {cost:.2f} eV" for d, cost in ways.highest.items()]
    rows = []
    for index, hop in enumerate(ways.network.hops):
        found = ways.barriers.get(index)
        if every_hop or found or index == 0:
            table.add_row(
                name if index == 0 else "",
                str(index),
                f"{hop.length:.2f}",
                str(hop.multiplicity),
                f"{hop.gate:.2f}",
                "" if found is None else f"{found.forward:.2f}{'' if found.converged else ' (not converged)'}",
                "; ".join(through) if index == 0 else "",
            )
        rows.append(
            {
                "crystal": name,
                "hop": index,
                "length": hop.length,
                "multiplicity": hop.multiplicity,
                "gate": hop.gate,
                "forward": found.forward if found else None,
                "backward": found.backward if found else None,
                "converged": found.converged if found else None,
            }
        )
    return rows


def _sweep_table(sweep: pd.DataFrame, guest: str, host: str) -> Table:
    table = Table(title=f"The best crystal of each content of {guest} in {host}", title_justify="left")
    names = (
        "x",
        "formula",
        "space group",
        "E_d meV/atom",
        f"Å³ a {host}",
        "against x = 0 %",
        "relaxing %",
        "host kept",
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("formula", "space group", "host kept") else "right")
    for row in sweep.itertuples():
        table.add_row(
            f"{row.x:.3f}",
            row.formula,
            row.space_group,
            f"{1e3 * row.e_d:.1f}",
            f"{row.volume:.1f}",
            "" if pd.isna(row.expansion) else f"{100 * row.expansion:+.1f}",
            "" if pd.isna(row.volume_change) else f"{100 * row.volume_change:+.1f}",
            {True: "yes", False: "no"}.get(row.host_kept, ""),
        )
    return table


def _voltage_table(steps: Sequence[VoltageStep], guest: str) -> Table:
    table = Table(title=f"Voltage against {guest}", title_justify="left")
    for name in ("from", "to", "x", "V"):
        table.add_column(name, justify="left" if name in ("from", "to") else "right")
    for step in steps:
        table.add_row(*step.phases, f"{step.start:.2f} – {step.end:.2f}", f"{step.voltage:.2f}")
    return table
