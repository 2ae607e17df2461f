"""`hostguide dft`: VASP inputs of the best crystals, and the results of the calculations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from search.commands.common import JsonOption, console, number, print_json, say_warnings
from search.storage.paths import RunPath, is_run, run_path

if TYPE_CHECKING:
    from model.thermodynamics.reference import Reference
    from search.dft.results import Calculation

app = typer.Typer(help="Write VASP inputs of the best crystals, and read the results back.", no_args_is_help=True)


@app.command("write")
def write(
    source: Annotated[list[str], typer.Argument(help="A run, crystal files, or known phases: mp-149")],
    out: Annotated[Path, typer.Option(help="Folder for the inputs", file_okay=False)],
    kind: Annotated[
        Literal["mp-gga", "mp-r2scan"], typer.Option("--set", help="Input set; mp-gga is GGA or GGA+U")
    ] = "mp-gga",
    static: Annotated[bool, typer.Option("--static", help="Single points instead of relaxations")] = False,
    top: Annotated[int, typer.Option(min=1, help="Run only: maximum number of crystals")] = 5,
    formula: Annotated[str | None, typer.Option(help="Run only: only this reduced formula")] = None,
    e_d_below: Annotated[float | None, typer.Option(help="Run only: only E_d below this, eV/atom")] = None,
    candidate: Annotated[list[str] | None, typer.Option(help="Run only: these candidates instead")] = None,
    symmetrise: Annotated[
        bool, typer.Option("--symmetrise", help="Move atoms onto the space group within 0.1 Å; primitive cell")
    ] = False,
    potcars: Annotated[str | None, typer.Option(help="pymatgen's name of the POTCAR release, e.g. PBE_54")] = None,
) -> None:
    """Write VASP inputs with the settings of the Materials Project."""
    from search.dft.inputs import MANIFEST, has_potcars, job_of_file, jobs_of_run, write_inputs

    jobs = []
    for path in map(run_path, source):
        if is_run(path):
            jobs += jobs_of_run(
                path,
                top=top,
                formula=formula,
                e_d_below=e_d_below,
                candidates=candidate or (),
                symmetrise=symmetrise,
            )
        else:
            assert isinstance(path, Path)
            jobs.append(job_of_file(path, symmetrise=symmetrise))
    warned = write_inputs(jobs, out, kind=kind, static=static, potcars=potcars)
    say_warnings(*jobs)
    for job in jobs:
        console.print(str(out / job.name), soft_wrap=True)
    folders = f"{len(jobs)} folder{'s' if len(jobs) > 1 else ''}"
    console.print(f"{folders} of VASP inputs, listed in {out / MANIFEST}", soft_wrap=True)
    for text in warned:
        console.print(f"pymatgen: {text}", soft_wrap=True)
    if not has_potcars():
        console.print(
            "No POTCARs were written: set PMG_VASP_PSP_DIR to the folder of your licensed VASP pseudopotentials and "
            "run this again (https://pymatgen.org/installation.html#potcar-setup), or concatenate the POTCARs named "
            "in POTCAR.spec.",
            soft_wrap=True,
        )


@app.command("read")
def read(
    folders: Annotated[list[Path], typer.Argument(help="Folders with vasprun.xml(.gz), also in subfolders")],
    run: Annotated[str, typer.Option(help="Folder or address of the candidates' run")],
    reference: Annotated[
        str, typer.Option(help="Competing phases: own (those among the calculations), mp, packaged, or a file")
    ] = "own",
    reference_potential: Annotated[
        str | None,
        typer.Option(help="For a JSON file: the method of its energies, `MP2020-corrected PBE` or r2SCAN"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read finished calculations, apply corrections, compute E_d, and store the results in the run."""
    from search.dft.results import FILE, find_vaspruns, read_calculation, take_in
    from search.storage.results import load_results

    place = run_path(run)
    load_results(place, structures=False)  # raises if this is not a run, before the files are read
    calculations = []
    for path in find_vaspruns(folders):
        try:
            calculations.append(read_calculation(path))
        except ValueError as error:
            console.print(f"Skipped: {error}", soft_wrap=True)
    if not calculations:
        raise ValueError("no finished calculation was found")
    phases = _reference(reference, reference_potential, calculations)
    rows = take_in(place, calculations, phases)
    if as_json:
        print_json("dft read", rows)
    else:
        console.print(_table(rows), soft_wrap=True)
    for line in _explanations(place, calculations, phases):
        console.print(line, soft_wrap=True)
    console.print(f"{len(rows)} calculations are stored in {place / FILE}", soft_wrap=True)


def _reference(name: str, potential: str | None, calculations: Sequence[Calculation]) -> Reference | None:
    """The competing phases requested by the user; None for those among the calculations."""
    from model.thermodynamics.entries import load_entries, load_materials_project
    from model.thermodynamics.reference import (
        load_reference_table,
        packaged_reference,
    )

    families = sorted({one.family for one in calculations})
    if name == "own":
        return None
    if name == "packaged":
        return packaged_reference()
    if name == "mp":
        if len(families) > 1:
            raise ValueError(f"these calculations use {' and '.join(families)}: read one kind at a time")
        elements = {symbol for one in calculations for symbol in one.crystal.symbols}
        return load_materials_project(elements, potential=families[0])
    if not Path(name).is_file():
        raise ValueError(f"--reference must be own, mp, packaged or a file, and {name!r} does not exist")
    if Path(name).suffix == ".parquet":
        return load_reference_table(name)
    if potential is None:
        raise ValueError(
            f"give --reference-potential, the method of the entries in {name}, for example 'MP2020-corrected PBE' "
            "(with the corrections stored in the entries) or r2SCAN"
        )
    return load_entries(name, potential=potential)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="DFT calculations", title_justify="left")
    for name in (
        "calculation",
        "formula",
        "space group",
        "functional",
        "E eV/atom",
        "correction",
        "E_d DFT meV/atom",
        "E_d potential",
        "difference",
        "volume change %",
        "same structure",
    ):
        left = name in ("calculation", "formula", "space group", "functional", "same structure")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in sorted(rows, key=lambda row: (row.get("e_d") is None, row.get("e_d"))):
        table.add_row(
            row["candidate"] or Path(row["calculation"]).parent.name,
            row["formula"],
            row["space_group"],
            row["functional"] + ("" if row["converged"] else " (unconverged)"),
            number(row["energy"], ".4f"),
            number(sum(value for _, value in row["corrections"]), ".4f"),
            _scaled(row.get("e_d"), 1e3),
            _scaled(row.get("e_d_potential"), 1e3),
            _scaled(row.get("gap"), 1e3),
            _scaled(row.get("volume_change"), 100),
            {True: "yes", False: "no", None: ""}[row.get("same_structure")],
        )
    return table


def _scaled(value: float | None, scale: float) -> str:
    return number(None if value is None else scale * value, ".1f")


def _explanations(run: RunPath, calculations: Sequence[Calculation], reference: Reference | None) -> list[str]:
    """Why some calculations have no E_d, and how reliable the others are."""
    from model.potentials.catalog import CATALOG
    from search.dft.results import own_reference, stored_calculations, why_not

    everything = stored_calculations(run)
    lines = []
    for one in calculations:
        reason = why_not(one, reference or own_reference(everything, one.family))
        if reason:
            lines.append(f"No E_d for {one.candidate or Path(one.calculation).parent.name}: {reason}")
    if lines and reference is None:
        lines.append(
            "Calculate the competing phases with the same set too (`hostguide dft write PHASES.cif`), "
            "or give a hull of DFT energies with --reference."
        )
    if reference is not None and reference.potential in CATALOG:
        error = CATALOG[reference.potential].error
        about = "" if error is None else f" of about {1e3 * error:.0f} meV/atom"
        lines.append(
            f"The hull consists of energies of {reference.potential}, whose error{about} "
            "affects E_d and the difference. "
            "To resolve differences of that size, give a hull of DFT energies with --reference."
        )
    return lines
