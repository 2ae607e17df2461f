"""`hostguide relax`: relaxation of crystals from files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress
from rich.table import Table

from model.potentials.catalog import DEFAULT
from model.reasons import Reason
from search.commands.common import (
    INCOMPLETE,
    CrystalFiles,
    DeviceOption,
    FmaxOption,
    JsonOption,
    MinutesOption,
    OverwriteOption,
    PotentialOption,
    ReferenceOption,
    Row,
    ThreadsOption,
    console,
    crystal_table,
    e_d_cell,
    load_potential,
    number,
    print_json,
    products_cell,
    require_elements,
    say_of,
    say_warnings,
    seconds_of,
)

if TYPE_CHECKING:
    import numpy as np

    from model.relaxation.coordinates import Cell
    from model.relaxation.relax import Relaxation
    from search.storage.crystal_files import NamedCrystal


def relax(
    files: CrystalFiles,
    out: Annotated[Path, typer.Option(help="Folder for CIFs and summary.csv, or one .extxyz file")] = Path("relaxed"),
    overwrite: OverwriteOption = False,
    potential: PotentialOption = DEFAULT,
    reference: ReferenceOption = None,
    optimizer: Annotated[
        Literal["fire", "lbfgs"], typer.Option(help="lbfgs is faster, fire is what the papers use")
    ] = "lbfgs",
    fmax: FmaxOption = 0.05,
    steps: Annotated[int, typer.Option(min=0, help="Maximum number of steps per crystal")] = 500,
    cell: Annotated[
        Literal["full", "hydrostatic", "fixed_volume", "fixed"] | None,
        typer.Option(
            help="How the cell may change (default: full, or fixed where atoms are fixed)", show_default=False
        ),
    ] = None,
    pressure: Annotated[float, typer.Option(help="External pressure, GPa")] = 0.0,
    free: Annotated[
        list[str] | None,
        typer.Option(
            help="Move only atoms of this element, unless the file fixes them; may be given several times",
            show_default=False,
        ),
    ] = None,
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Keep each crystal in its initial space group")
    ] = False,
    symprec: Annotated[float, typer.Option(help="Tolerance for finding that space group, Å")] = 0.01,
    batch: Annotated[int, typer.Option(min=1, help="Number of crystals relaxed together; raise it on a GPU")] = 16,
    minutes: MinutesOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Relax crystals and compute their E_d; exits with 1 if any of them did not converge."""
    from model.relaxation.relax import RelaxSettings
    from model.relaxation.relax import relax as relax_crystals
    from search.storage.crystal_files import read_files
    from search.studies.crystal_results import RelaxationFiles, free_atoms
    from search.studies.crystal_stability import CrystalStability

    if fmax <= 0 or symprec <= 0:
        raise ValueError(f"--fmax and --symprec must be above 0, got {fmax} and {symprec}")
    stability = CrystalStability(potential, reference, pressure=pressure)
    read = read_files(files)
    crystals = read.crystals
    require_elements("--free", free or ())
    masks = free_atoms(crystals, free or ())
    if cell is None and len({mask is None for mask in masks}) > 1:
        some = next(one.name for one, mask in zip(crystals, masks, strict=True) if mask is not None)
        raise ValueError(
            f"{some} has fixed atoms and other files have not: say with --cell (full or fixed) what holds for all, or "
            "relax them apart"
        )
    settings = RelaxSettings(
        optimizer=optimizer,
        fmax=fmax,
        max_steps=steps,
        cell=cell or ("full" if all(mask is None for mask in masks) else "fixed"),
        pressure=pressure,
        keep_symmetry=keep_symmetry,
        symprec=symprec,
    )
    written = RelaxationFiles(out, crystals, stability, read.unreadable, overwrite=overwrite, pressure=pressure)
    say_warnings(*crystals)
    say_of((one.name, _held(one.fixed, settings.cell)) for one in crystals if one.fixed is not None)
    model = load_potential(potential, device, threads)
    console.print(
        f"{_count(crystals)}: {model.name}, {settings.optimizer}, fmax {settings.fmax} eV/Å, cell {settings.cell}"
    )
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("relaxed", total=len(crystals))

        def done(index: int, result: Relaxation) -> None:
            written.add(index, result)
            bar.advance(task)

        results = relax_crystals(
            [one.crystal for one in crystals],
            model,
            settings,
            free=masks,
            batch_size=batch,
            max_seconds=seconds_of(minutes),
            report=done,
        )
    if as_json:
        print_json("relax", [{**row, "file": written.cif(row)} for row in written.rows])
    else:
        console.print(_table(written.rows, pressure))
    say_of((row["name"], row["detail"]) for row in written.rows if row["detail"])
    console.print(f"{_reasons(written.rows)}. Results: {out}", soft_wrap=True)
    if read.unreadable or not all(result.converged for result in results):
        raise typer.Exit(INCOMPLETE)


def _held(fixed: np.ndarray, cell: Cell) -> str:
    """What becomes of the atoms that a file fixes ((n,) bool)."""
    text = f"{fixed.sum()} of {len(fixed)} atoms are fixed, as the file says."
    return text if cell == "fixed" else f"{text} They move with the cell: their fractional coordinates stay."


def _count(crystals: Sequence[NamedCrystal]) -> str:
    sizes = [len(one.crystal) for one in crystals]
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"{len(crystals)} crystal{'s' if len(crystals) > 1 else ''} of {span} atoms"


def _reasons(rows: Sequence[Row]) -> str:
    counts = Counter(row["outcome"] for row in rows)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _table(rows: Sequence[Row], pressure: float) -> Table:
    """Table of results, failures first; under an external pressure (GPa) with enthalpies."""
    columns: dict[str, Callable[[Row], str]] = {
        "E eV/atom": lambda row: number(row["energy_final"], ".4f", "–"),
        **({"H eV/atom": lambda row: number(row["enthalpy_final"], ".4f", "–")} if pressure else {}),
        "E_d meV/atom": e_d_cell,
        "products": products_cell,
        "known": lambda row: row["known"],
        "energy gain meV/atom": lambda row: number(1e3 * (row["energy_initial"] - row["energy_final"]), ".1f", "–"),
        "max force eV/Å": lambda row: number(row["max_force"], ".3f", "–"),
        "volume change %": lambda row: number(row["volume_change_percent"], "+.1f", "–"),
        "space group": lambda row: row["space_group"],
        "outcome": lambda row: row["outcome"] + (f", {row['steps']} steps" if row["steps"] else ""),
    }
    return crystal_table("Relaxed crystals", columns, sorted(rows, key=lambda row: row["outcome"] == Reason.CONVERGED))
