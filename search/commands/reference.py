"""`hostguide reference`: the competing phases against which decomposition energies are measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.potentials.catalog import DEFAULT, load_potential
from model.reasons import Reason
from search.commands.common import (
    DeviceOption,
    FmaxOption,
    JsonOption,
    MinutesOption,
    PotentialOption,
    ThreadsOption,
    console,
    counted,
    parse_share,
    print_json,
    seconds_of,
    use_threads,
)
from search.commands.common import load_potential as load

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(help="Competing phases, against which decomposition energies are measured.", no_args_is_help=True)


@app.command("show")
def show(
    system: Annotated[str, typer.Argument(help="Chemical system, for example Li-Si")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for CIFs of the system's phases in the library", file_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the phases of a system in the packaged reference, stable ones first, and write their crystals."""
    from model.crystals.composition import parse_system
    from model.library.phases import packaged_library
    from search.reporting.tables import phases, reference_table
    from search.storage.cif import write_cif

    crystals = packaged_library().phases(parse_system(system))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for phase in crystals:
            write_cif(phase.crystal, out / f"{phase.formula}_{phase.material_id}.cif")
    if as_json:
        print_json("reference show", phases(system))
        return
    console.print(reference_table(system))
    if out is None:
        console.print(
            f"The library has {len(crystals)} crystals of this system. A command takes an identifier for a file."
        )
    else:
        console.print(f"{len(crystals)} crystals of the library: {out}", soft_wrap=True)


@app.command("hull")
def hull(
    system: Annotated[str, typer.Argument(help="Chemical system, for example Li-P-S")],
    potential: PotentialOption = DEFAULT,
    out: Annotated[
        Path | None, typer.Option(help="Table to write (.parquet), for reference.kind: table", dir_okay=False)
    ] = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Make the hull of a potential: relax the known phases of a system that could matter, and list them.

    What is done is kept in the cache, so the command can be stopped and repeated.
    """
    from model.files import written_whole
    from model.thermodynamics.own_hull import judge_hull, missing_phases
    from model.thermodynamics.reference import reference_bytes
    from search.reporting.tables import phases, reference_table

    model = load(potential, device, threads)
    with counted() as report:
        reference = judge_hull(system, model, report=partial(report, f"phases by {model.name}"))
    if as_json:
        print_json("reference hull", phases(system, reference))
    else:
        console.print(reference_table(system, reference))
    elements = sorted(reference.elements)
    missing = sorted(set(missing_phases(elements)) - set(reference.phases["formula"]))
    if missing:
        console.print(f"No crystal of {', '.join(missing)} is known to the library: the hull lacks it.", soft_wrap=True)
    if out is not None:
        with written_whole(out) as temporary:
            temporary.write_bytes(reference_bytes(reference))
        console.print(f"For `reference: {{kind: table, path: {out}}}`: {out}", soft_wrap=True)


@app.command("build")
def build(
    energies: Annotated[
        Path, typer.Argument(help="Parquet of phases: material_id, formula, n_atoms, energy_per_atom, e_above_hull")
    ],
    out: Annotated[Path, typer.Argument(help="Reference table to write (.parquet)")],
    structures: Annotated[Path | None, typer.Option(help="Parquet of structures, for volumes")] = None,
    relaxed: Annotated[
        list[Path] | None,
        typer.Option(
            help="Parquet of relaxed energies (material_id, energy_per_atom) that replace single points; "
            "may be given several times, earlier files take precedence"
        ),
    ] = None,
    potential: Annotated[str, typer.Option(help="Potential that computed the energies")] = DEFAULT,
    name: Annotated[str, typer.Option(help="Name of the table, stored with every result")] = "own phases",
    source: Annotated[
        str, typer.Option(help="Source of the phases, for credit, and their licence; stored in the table")
    ] = "own phases",
    version: Annotated[str, typer.Option(help="Version of the phases' database; stored in the table")] = "unknown",
) -> None:
    """Build a reference table from phases with energies."""
    from model.thermodynamics.reference import build_reference_table, load_reference_table

    build_reference_table(
        energies,
        out,
        structures_parquet=structures,
        relaxed_parquet=relaxed or (),
        potential=potential,
        name=name,
        source=source,
        version=version,
    )
    console.print(f"{len(load_reference_table(out))} phases in {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command("library")
def library(
    structures: Annotated[Path, typer.Argument(help="Parquet of phases with structures, see docs/reference.md")],
    out: Annotated[Path, typer.Argument(help="Library to write (.parquet)")],
    within: Annotated[float, typer.Option(min=0, help="Maximum energy above hull, eV/atom")] = 0.01,
    source: Annotated[
        str, typer.Option(help="Source of the phases, for credit, and their licence; stored in the library")
    ] = "own phases",
    version: Annotated[str, typer.Option(help="Version of the phases' database; stored in the library")] = "unknown",
) -> None:
    """Make a library of known phases, with their crystals, from the phases near the hull."""
    from model.library.build import build_library

    with counted() as report:
        count = build_library(
            structures, out, within=within, source=source, version=version, report=partial(report, "read")
        )
    console.print(f"{count} phases in {out} ({out.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


@app.command("relax")
def relax(
    structures: Annotated[Path, typer.Option(help="Parquet of phases with structures, see docs/reference.md")],
    out: Annotated[Path, typer.Option(help="Folder for the results; an existing one is continued", file_okay=False)],
    within: Annotated[float, typer.Option(min=0, help="Maximum energy above hull, eV/atom")] = 0.05,
    first: Annotated[str, typer.Option(help="Chemical systems to start with, for example Li-Si,Zn-P-S")] = "",
    max_atoms: Annotated[int, typer.Option(min=1, help="Maximum number of atoms in a cell")] = 250,
    potential: PotentialOption = DEFAULT,
    fmax: FmaxOption = 0.01,
    share: Annotated[str, typer.Option(help="k/n: process the k-th of n parts")] = "1/1",
    minutes: MinutesOption = None,
    known: Annotated[
        Path | None, typer.Option(help="Parquet of relaxed energies; its phases are skipped", show_default=False)
    ] = None,
) -> None:
    """Relax all phases near the hull. Can be stopped at any time; rerun the same command to resume."""
    from model.thermodynamics.reference_relaxation import PhaseSettings, choose, relax_phases

    use_threads()
    part = parse_share("--share", share)
    if fmax <= 0:
        raise ValueError(f"--fmax must be above 0, got {fmax}")
    relaxation = PhaseSettings().relaxation.model_copy(update={"fmax": fmax})
    settings = PhaseSettings(within=within, max_atoms=max_atoms, relaxation=relaxation)
    systems = [system for system in first.split(",") if system.strip()]
    phases = choose(structures, settings, first=systems, known=known)
    console.print(f"{len(phases)} phases of up to {phases['n_atoms'].max()} atoms within {within} eV/atom of the hull")
    model = load_potential(potential)
    with counted() as report:
        stored = relax_phases(
            phases,
            out,
            model,
            settings,
            share=part,
            max_seconds=seconds_of(minutes),
            report=partial(report, "relaxed"),
        )
    _summarise(stored, out)


def _summarise(stored: pd.DataFrame, out: Path) -> None:
    from model.thermodynamics.reference_relaxation import MERGED

    converged = stored[stored["reason"] == Reason.CONVERGED]
    console.print(f"{len(stored)} phases are in {out}; {len(converged)} converged", soft_wrap=True)
    if len(converged):
        gain = 1e3 * (converged["energy_single_point"] - converged["energy_per_atom"])
        console.print(
            f"relaxation lowered their energy by {gain.mean():.1f} meV/atom on average, {gain.max():.1f} at most"
        )
    console.print(f"For `hostguide reference build --relaxed`: {out / MERGED}", soft_wrap=True)
