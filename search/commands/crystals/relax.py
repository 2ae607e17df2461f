"""`hostguide relax`: relaxation of crystals from files."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Column, Table

from model.potentials.catalog import DEFAULT
from model.reasons import Reason
from search.commands.common import (
    FRAMES,
    INCOMPLETE,
    ROWS_SHOWN,
    CrystalFiles,
    DeviceOption,
    FmaxOption,
    MinutesOption,
    OverwriteOption,
    PotentialOption,
    ThreadsOption,
    console,
    left_out,
    load_potential,
    number,
    require_elements,
    require_new,
    seconds_of,
)

if TYPE_CHECKING:
    import ase

    from model.relaxation.relax import Relaxation
    from search.storage.crystal_files import NamedCrystal

SUMMARY = "summary.csv"


def relax(
    files: CrystalFiles,
    out: Annotated[Path, typer.Option(help="Folder for CIFs and summary.csv, or one .extxyz file")] = Path("relaxed"),
    overwrite: OverwriteOption = False,
    potential: PotentialOption = DEFAULT,
    optimizer: Annotated[
        Literal["fire", "lbfgs"], typer.Option(help="lbfgs is faster, fire is what the papers use")
    ] = "lbfgs",
    fmax: FmaxOption = 0.05,
    steps: Annotated[int, typer.Option(min=0, help="Maximum number of steps per crystal")] = 500,
    cell: Annotated[
        Literal["full", "hydrostatic", "fixed_volume", "fixed"] | None,
        typer.Option(help="How the cell may change (default: full, or fixed with --free)", show_default=False),
    ] = None,
    pressure: Annotated[float, typer.Option(help="External pressure, GPa")] = 0.0,
    free: Annotated[
        list[str] | None,
        typer.Option(help="Move only atoms of this element; may be given several times", show_default=False),
    ] = None,
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Keep each crystal in its initial space group")
    ] = False,
    symprec: Annotated[float, typer.Option(help="Tolerance for finding that space group, Å")] = 0.01,
    batch: Annotated[int, typer.Option(min=1, help="Number of crystals relaxed together; raise it on a GPU")] = 16,
    minutes: MinutesOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
) -> None:
    """Relax crystals; exits with 1 if any of them did not converge."""
    from model.relaxation.relax import RelaxSettings
    from model.relaxation.relax import relax as relax_crystals
    from search.storage.crystal_files import read_files

    if fmax <= 0 or symprec <= 0:
        raise ValueError(f"--fmax and --symprec must be above 0, got {fmax} and {symprec}")
    settings = RelaxSettings(
        optimizer=optimizer,
        fmax=fmax,
        max_steps=steps,
        cell=cell or ("fixed" if free else "full"),
        pressure=pressure,
        keep_symmetry=keep_symmetry,
        symprec=symprec,
    )
    crystals = read_files(files)
    masks = _masks(crystals, free or ())
    writer = _Results(out, crystals, overwrite=overwrite)
    model = load_potential(potential, device, threads)
    console.print(
        f"{_count(crystals)}: {potential}, {settings.optimizer}, fmax {settings.fmax} eV/Å, cell {settings.cell}"
    )
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("relaxed", total=len(crystals))

        def done(index: int, result: Relaxation) -> None:
            writer.add(index, result)
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
    console.print(_table(writer.rows))
    console.print(f"{_reasons(results)}. Results: {out}", soft_wrap=True)
    if not all(result.converged for result in results):
        raise typer.Exit(INCOMPLETE)


def _masks(crystals: Sequence[NamedCrystal], free: Sequence[str]) -> list[np.ndarray | None]:
    """(n,) bool per crystal of the atoms that may move; None for all."""
    from ase.data import atomic_numbers

    if not free:
        return [None] * len(crystals)
    require_elements("--free", free)
    masks = [np.isin(one.crystal.numbers, [atomic_numbers[element] for element in free]) for one in crystals]
    without = [one.name for one, mask in zip(crystals, masks, strict=True) if not mask.any()]
    if without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        raise ValueError(f"--free {', '.join(free)}: no such atoms in {', '.join(without[:3])}{more}")
    return list(masks)


def _count(crystals: Sequence[NamedCrystal]) -> str:
    sizes = [len(one.crystal) for one in crystals]
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"{len(crystals)} crystal{'s' if len(crystals) > 1 else ''} of {span} atoms"


def _reasons(results: Sequence[Relaxation]) -> str:
    counts = Counter(result.reason for result in results)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


class _Results:
    """Writes each relaxed crystal as soon as it is done, so that nothing is lost if the command is interrupted."""

    def __init__(self, out: Path, crystals: Sequence[NamedCrystal], *, overwrite: bool) -> None:
        self.out, self.crystals, self.frames = out, crystals, out.suffix in FRAMES
        self.rows: list[dict[str, Any]] = []
        if out.suffix and not self.frames:
            raise ValueError(f"--out {out}: give a folder for CIFs, or a file that ends in .extxyz")
        files = [out] if self.frames else [out / SUMMARY, *(out / f"{one.name}.cif" for one in crystals)]
        require_new(files, overwrite)
        (out.parent if self.frames else out).mkdir(parents=True, exist_ok=True)
        for path in files:
            path.unlink(missing_ok=True)

    def add(self, index: int, result: Relaxation) -> None:
        """Write one result; a crystal that failed always gets a row, but a CIF only if it can be ranked."""
        import ase.io
        from pymatgen.io.cif import CifWriter

        from model.relaxation.relax import may_be_ranked

        name = self.crystals[index].name
        self.rows.append(_row(name, result))
        if self.frames:
            ase.io.write(self.out, _frame(name, result), format="extxyz", append=True)
            return
        with (self.out / SUMMARY).open("a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.rows[0])
            if len(self.rows) == 1:
                table.writeheader()
            table.writerow(self.rows[-1])
        if may_be_ranked(result):
            CifWriter(result.final.to_pymatgen()).write_file(self.out / f"{name}.cif")  # no symmetry imposed


def _frame(name: str, result: Relaxation) -> ase.Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    from model.relaxation.relax import may_be_ranked

    atoms = result.final.to_ase()
    atoms.info = {"name": name, "outcome": result.reason, "steps": result.steps}
    if may_be_ranked(result):
        energy = result.energy_final * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=result.forces_final)
    return atoms


def _row(name: str, result: Relaxation) -> dict[str, Any]:
    """One line of `SUMMARY`."""
    from model.relaxation.relax import may_be_ranked
    from model.symmetry.space_group import space_group

    known = may_be_ranked(result)
    group = space_group(result.final) if known else None
    return {
        "name": name,
        "formula": result.initial.composition.formula.replace(" ", "") if len(result.initial) else "",
        "atoms": len(result.initial),
        "energy_initial": result.energy_initial,
        "energy_final": result.energy_final if known else math.nan,
        "max_force": result.max_force,
        "pressure_gpa": result.pressure,
        "volume_change_percent": 100 * (result.final.volume / result.initial.volume - 1) if known else math.nan,
        "space_group": "" if group is None else group.symbol,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "outcome": result.reason,
        "detail": result.detail,
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table of results, failures first."""
    table = Table(
        Column("crystal", overflow="fold"),
        "formula",
        "E eV/atom",
        "energy gain meV/atom",
        "max force eV/Å",
        "volume change %",
        "space group",
        "steps",
        "outcome",
        title="Relaxed crystals",
        caption=left_out(rows),
    )
    for row in sorted(rows, key=lambda row: row["outcome"] == Reason.CONVERGED)[:ROWS_SHOWN]:
        table.add_row(
            row["name"],
            row["formula"],
            number(row["energy_final"], ".4f", "–"),
            number(1e3 * (row["energy_initial"] - row["energy_final"]), ".1f", "–"),
            number(row["max_force"], ".3f", "–"),
            number(row["volume_change_percent"], "+.1f", "–"),
            row["space_group"],
            str(row["steps"]),
            row["outcome"] + (f": {row['detail']}" if row["detail"] else ""),
        )
    return table
