"""`hostguide analyse`: coordination, voids, migration paths and voltages of a crystal or the best ones of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from search.commands.common import (
    JsonOption,
    console,
    number,
    print_json,
    require_elements,
    say_warnings,
    use_threads,
)
from search.storage.paths import RunPath, beside, is_run, run_path

RARE = 0.01  # share of an element's atoms below which surroundings are left out of the table on the screen

if TYPE_CHECKING:
    import pandas as pd

    from model.analysis.migration import BarrierSettings
    from model.analysis.voltage import VoltageStep
    from model.crystals.crystal import Crystal
    from search.studies.guest_paths import Percolation
    from search.studies.guest_uptake import Uptake


def analyse(
    source: Annotated[str, typer.Argument(help="A run, a crystal file, or a known phase: mp-149")],
    guest: Annotated[str | None, typer.Option(help="Mobile element, whose migration paths are analysed")] = None,
    host: Annotated[str | None, typer.Option(help="Run only: formula of the host, for a voltage curve")] = None,
    framework: Annotated[
        str | None, typer.Option(help="Run only: analyse the uptake of the guest by this framework")
    ] = None,
    charge: Annotated[
        int | None, typer.Option(help="Run only: charge of the guest's ion, for voltages (default: the usual one)")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Phases to compare with: crystal files, identifiers, or Parquet of structures"),
    ] = None,
    barriers: Annotated[bool, typer.Option("--barriers", help="Compute migration barriers; takes minutes")] = False,
    single: Annotated[
        bool, typer.Option("--single", help="Barriers for a single guest (default: for a vacancy among guests)")
    ] = False,
    height: Annotated[float, typer.Option(help="Minimum height of the supercell for a barrier, Å")] = 8.0,
    equal_sites: Annotated[
        bool, typer.Option("--equal-sites", help="Include all sites equivalent under the host's symmetry")
    ] = False,
    max_length: Annotated[float, typer.Option(help="Maximum length of a hop, Å")] = 4.5,
    top: Annotated[int, typer.Option(min=1, help="Run only: number of best crystals to analyse")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for tables and figures (default: RUN/analysis or FILE-analysis)", file_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute coordination, radial distribution functions, voids, migration paths of a guest, and voltages."""
    from model.analysis.migration import BarrierSettings
    from model.analysis.voltage import ion_charge
    from search.config_file import load_config
    from search.planning.prepare import run_stability
    from search.storage.results import load_results
    from search.studies.analyse import known_phases
    from search.studies.guest_uptake import guest_uptake

    use_threads()
    if max_length <= 0 or height <= 0:
        raise ValueError(f"--max-length and --height must be positive, got {max_length} and {height}")
    place = run_path(source)
    require_elements("--guest", [guest] if guest is not None else [])
    if guest is None and (barriers or equal_sites or host or framework):
        raise ValueError("give --guest, the element that moves")
    frame = load_results(place, structures=False) if is_run(place) else None
    if host and framework:
        raise ValueError(f"give --host or --framework, not both: {framework} already defines the host")
    if frame is None and (host or framework):
        raise ValueError("--host and --framework (voltage curve) need a run, not a crystal file")
    if charge is not None and not (host or framework):
        raise ValueError(f"--charge {charge} is for the voltage curve: give --host or --framework too")
    if charge == 0:
        raise ValueError("--charge 0: give the charge of the guest's ion, for example 1 for Cu+")
    folder = out or (beside(place) / "analysis" if is_run(place) else Path(f"{place.stem}-analysis"))
    uptake, ion = None, 0
    if frame is not None and guest and (host or framework):
        ion = charge or ion_charge(guest)
        uptake = guest_uptake(
            frame,
            run_stability(place),
            guest,
            potential=load_config(place / "config.yaml").models.potential,
            host=host,
            framework=framework,
            charge=ion,
        )
    crystals = _crystals(frame, place, top, guest=guest, vacancies=barriers and not single)
    elements = sorted({symbol for _, crystal in crystals for symbol in crystal.symbols})
    known = known_phases(against or [], elements, say_warnings)
    found: dict[str, Any] = {"folder": str(folder)}
    found["coordination"] = _surroundings([crystal for _, crystal in crystals], known, elements, folder)
    if frame is None:
        found["voids"] = _voids(crystals[0][1], guest)
    if guest is not None:
        settings = BarrierSettings(min_length=height, vacancy=not single) if barriers else None
        found["hops"] = _migration(
            crystals, guest, barriers=settings, equal_sites=equal_sites, max_length=max_length, out=folder
        )
    if uptake is not None and guest is not None:
        _show_uptake(uptake, guest, ion, folder, "" if framework is None else f"-{framework}")
        _, curve, steps = uptake
        found |= {"uptake": curve.to_dict("records"), "voltages": [asdict(step) for step in steps]}
    if as_json:
        print_json("analyse", found)
    console.print(f"Tables and figures: {folder}", soft_wrap=True)


def _show_uptake(uptake: Uptake, guest: str, charge: int, out: Path, suffix: str) -> None:
    from model.analysis.voltage import ion_name
    from search.studies.analyse import draw_voltages
    from search.studies.guest_uptake import draw_uptake

    host, curve, steps = uptake
    console.print(_uptake_table(curve, guest, host))
    curve.to_csv(out / f"uptake{suffix}.csv", index=False)
    draw_uptake(curve, guest, host, out / f"uptake{suffix}.png")
    picture = out / f"voltage{suffix}.png"
    if not steps:
        picture.unlink(missing_ok=True)  # from an earlier call
        console.print(f"No voltage curve: fewer than two stable phases are known on the line from {host} to {guest}.")
        return
    ion = ion_name(guest, charge)
    console.print(_voltage_table(steps, guest, ion))
    draw_voltages(steps, guest, host, picture, ion=ion)


def _crystals(
    frame: pd.DataFrame | None, source: RunPath, top: int, *, guest: str | None, vacancies: bool
) -> list[tuple[str, Crystal]]:
    """Names and crystals to analyse: that of the file, or the best ones of the run."""
    from search.storage.cif import tolerances
    from search.storage.ranking import rank
    from search.storage.rows import unpack_or_raise

    if frame is None:
        assert isinstance(source, Path)
        return [_of_file(source, guest, vacancies=vacancies)]
    best = rank(frame, top=top)
    if best.empty:
        raise ValueError(f"{source} has no relaxed candidate yet")
    names = best["formula"] + " " + best["candidate"]
    rows = best.to_dict("records")
    return [
        (name, _symmetric(unpack_or_raise(row["final"]), *tolerances(row)))
        for name, row in zip(names, rows, strict=True)
    ]


def _of_file(path: Path, guest: str | None, *, vacancies: bool) -> tuple[str, Crystal]:
    """Name and crystal of a file; with a guest, its sites may be partially filled."""
    from model.crystals.crystal import Crystal
    from search.storage.crystal_files import read_crystal, read_structure
    from search.studies.guest_paths import with_partial_sites

    if guest is None:
        read = read_crystal(path)
        say_warnings(read)
        return read.crystal.formula, read.crystal
    disordered = read_structure(path)
    say_warnings(disordered)
    structure = disordered.structure
    if structure.is_ordered:
        crystal = Crystal.from_pymatgen(structure)
        return crystal.formula, crystal
    if vacancies:
        raise ValueError(
            f"--barriers needs all sites of {guest} filled: add --single for a lone {guest}, or order {path} with "
            "`hostguide inpaint`"
        )
    crystal, notes = with_partial_sites(structure, guest)
    name = structure.composition.reduced_formula
    for note in notes:
        _say(name, f"{note}.")
    return name, crystal


def _symmetric(crystal: Crystal, symprec: float, angle_tolerance: float) -> Crystal:
    """The crystal on the group that it has at a tolerance (Å, degrees): equivalent atoms have equal environments."""
    from model.symmetry.space_group import refine

    refined = refine(crystal, symprec, angle_tolerance)
    return refined.crystal if refined else crystal


def _surroundings(
    found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str], out: Path
) -> list[dict[str, Any]]:
    from search.studies.analyse import coordination_table, draw_coordination, draw_radial

    table = coordination_table(found, known, elements)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "coordination.csv", index=False)
    draw_radial(found, known, elements, out / "radial.png")
    draw_coordination(table, out / "coordination.png")
    common = table[(table[["found", "known"]] >= RARE).any(axis=1)]
    rarer = f"and {len(table) - len(common)} rarer ones in coordination.csv" if len(common) < len(table) else None
    shown = Table(title=f"Coordination in {len(found)} crystals", title_justify="left", caption=rarer)
    known_share = f"known % ({len(known)} phases)" if known else "known %"
    for name in ("element", "neighbours", "coordination", "found %", known_share):
        shown.add_column(name, justify="left" if name in ("element", "neighbours") else "right")
    for row in common.itertuples():
        shares = f"{100 * row.found:.0f}", number(100 * row.known, ".0f")
        shown.add_row(row.element, row.neighbours, str(row.coordination), *shares)
    console.print(shown)
    return list(table.to_dict("records"))


def _voids(crystal: Crystal, guest: str | None) -> list[dict[str, Any]]:
    import numpy as np

    from model.crystals.voids import guest_sites
    from search.studies.guest_paths import NARROWEST

    host = crystal if guest is None else crystal.select(np.array(crystal.symbols) != guest)
    table = Table(title=f"Voids of {host.formula} with radius > {NARROWEST} Å", title_justify="left")
    for name in ("x", "y", "z", "radius Å"):
        table.add_column(name, justify="right")
    voids = guest_sites(host, min_radius=NARROWEST)[:12]
    for void in voids:
        table.add_row(*(f"{x:.3f}" for x in void.fractional), f"{void.radius:.2f}")
    console.print(table)
    return [{"fractional": void.fractional.tolist(), "radius": float(void.radius)} for void in voids]


def _migration(
    crystals: Sequence[tuple[str, Crystal]],
    guest: str,
    *,
    barriers: BarrierSettings | None,
    equal_sites: bool,
    max_length: float,
    out: Path,
) -> list[dict[str, object]]:
    import pandas as pd
    from pymatgen.io.cif import CifWriter

    from model.potentials.catalog import DEFAULT, load_potential
    from search.studies.guest_paths import draw_barriers, percolation

    potential = load_potential(DEFAULT) if barriers else None
    table = Table(title=f"{guest} migration paths", title_justify="left")
    barrier_column = ["barrier eV"] if barriers else []
    columns = ("crystal", "hop", "length Å", "multiplicity", "bottleneck Å", *barrier_column, "percolates in")
    for name in columns:
        table.add_column(name, justify="left" if name in ("crystal", "percolates in") else "right")
    rows: list[dict[str, object]] = []
    profiles = {}
    for name, crystal in crystals:
        if set(crystal.symbols) == {guest}:
            continue
        paths = percolation(
            crystal,
            guest,
            max_length=max_length,
            potential=potential,
            settings=barriers,
            equal_sites=equal_sites,
            say=partial(_say, name),
        )
        rows += _hop_rows(name, paths)
        _add_rows(table, name, paths, every_hop=len(crystals) == 1, barriers=barriers is not None)
        for index, found in paths.barriers.items():
            profiles[f"{name} {index}"] = found
            for position, image in enumerate(found.images):
                folder = out / "hops" / f"{name.replace(' ', '_')}-{index}"
                folder.mkdir(parents=True, exist_ok=True)
                CifWriter(image.to_pymatgen()).write_file(folder / f"{position:02d}.cif")  # all in one cell: a path
        for problem in paths.problems:
            _say(name, problem)
    pd.DataFrame(rows).to_csv(out / "hops.csv", index=False)
    if profiles:
        draw_barriers(profiles, out / "barriers.png")
    console.print(table)
    return rows


def _say(name: str, text: str) -> None:
    console.print(f"{name}: {text}", soft_wrap=True)


def _add_rows(table: Table, name: str, paths: Percolation, *, every_hop: bool, barriers: bool) -> None:
    """Rows of one crystal: all its hops, or only the shortest one and those with a barrier."""
    through = [
        f"{' '.join([f'{d}D', *paths.directions.get(d, '').split()])} with hops of {length:.2f} Å"
        for d, length in paths.lengths.items()
    ] or ["no dimension"]
    through += [f"{d}D with barriers up to {cost:.2f} eV" for d, cost in paths.highest.items()]
    for index, hop in enumerate(paths.network.hops):
        found = paths.barriers.get(index)
        if not (every_hop or found or index == 0):
            continue
        cells = [
            name if index == 0 else "",
            str(index),
            f"{hop.length:.2f}",
            str(hop.multiplicity),
            f"{hop.bottleneck_radius:.2f}{' blocked' if hop.blocked else ''}",
        ]
        if barriers:
            cells.append(f"{found.forward:.2f}{'' if found.converged else ' (not converged)'}" if found else "")
        table.add_row(*cells, "\n".join(through) if index == 0 else "")


def _hop_rows(name: str, paths: Percolation) -> list[dict[str, object]]:
    """All hops of one crystal, for hops.csv."""
    rows = []
    for index, hop in enumerate(paths.network.hops):
        found = paths.barriers.get(index)
        rows.append(
            {
                "crystal": name,
                "hop": index,
                "length": hop.length,
                "multiplicity": hop.multiplicity,
                "bottleneck_radius": hop.bottleneck_radius,
                "blocked": hop.blocked,
                "forward": found.forward if found else None,
                "backward": found.backward if found else None,
                "converged": found.converged if found else None,
            }
        )
    return rows


def _uptake_table(curve: pd.DataFrame, guest: str, host: str) -> Table:
    table = Table(title=f"Best crystal for each {guest} content of {host}", title_justify="left")
    names = (
        "x",
        "formula",
        "space group",
        "E_d meV/atom",
        f"Å³ per {host}",
        "volume vs x = 0 %",
        "on relaxation %",
        "host kept",
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("formula", "space group", "host kept") else "right")
    for row in curve.itertuples():
        table.add_row(
            f"{row.x:.3f}",
            row.formula,
            row.space_group,
            f"{1e3 * row.e_d:.1f}",
            f"{row.volume:.1f}",
            number(100 * row.expansion, "+.1f"),
            number(100 * row.volume_change, "+.1f"),
            {True: "yes", False: "no"}.get(row.host_kept, ""),
        )
    return table


def _voltage_table(steps: Sequence[VoltageStep], guest: str, ion: str) -> Table:
    table = Table(title=f"Voltage vs {guest}/{ion}", title_justify="left")
    for name in ("from", "to", "x", "V"):
        table.add_column(name, justify="left" if name in ("from", "to") else "right")
    for step in steps:
        table.add_row(*step.phases, f"{step.start:.2f} – {step.end:.2f}", f"{step.voltage:.2f}")
    return table
