"""`hostguide evaluate`: single-point evaluation of crystals from files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Column, Table

from model.potentials.catalog import DEFAULT
from search.commands.common import (
    FRAMES,
    INCOMPLETE,
    ROWS_SHOWN,
    CrystalFiles,
    DeviceOption,
    OverwriteOption,
    PotentialOption,
    ThreadsOption,
    console,
    left_out,
    load_potential,
    number,
    require_new,
)

if TYPE_CHECKING:
    from model.potentials.interface import Evaluation
    from search.storage.crystal_files import NamedCrystal

CHUNK = 32  # crystals evaluated between updates of the progress bar


def evaluate(
    files: CrystalFiles,
    out: Annotated[Path | None, typer.Option(help="Output file: .csv, or .extxyz with forces and stress")] = None,
    overwrite: OverwriteOption = False,
    potential: PotentialOption = DEFAULT,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
) -> None:
    """Compute energy, forces, stress and moments without relaxation; exits with 1 if any evaluation fails."""
    from search.storage.crystal_files import read_files

    crystals = read_files(files)
    if out is not None:
        if out.suffix not in (".csv", *FRAMES):
            raise ValueError(f"--out {out}: the name must end in .csv (energies) or .extxyz (also forces and stress)")
        require_new([out], overwrite)
    model = load_potential(potential, device, threads)
    results: list[Evaluation] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("evaluated", total=len(crystals))
        for start in range(0, len(crystals), CHUNK):
            some = crystals[start : start + CHUNK]
            results += model.evaluate([one.crystal for one in some])
            bar.advance(task, len(some))
    rows = [_row(one, result) for one, result in zip(crystals, results, strict=True)]
    console.print(_table(rows))
    if out is not None:
        _write_evaluations(out, crystals, results, rows)
        console.print(f"Results: {out}", soft_wrap=True)
    failed = sum(bool(result.problem) for result in results)
    if failed:
        console.print(f"{failed} of {len(results)} could not be evaluated.")
        raise typer.Exit(INCOMPLETE)


def _row(one: NamedCrystal, result: Evaluation) -> dict[str, Any]:
    """One line of the CSV file."""
    from ase.units import GPa

    crystal, moments = one.crystal, result.magmoms
    return {
        "name": one.name,
        "formula": crystal.composition.formula.replace(" ", "") if len(crystal) else "",
        "atoms": len(crystal),
        "energy": result.energy,
        "max_force": float(np.linalg.norm(result.forces, axis=1).max()) if len(crystal) else np.nan,
        "pressure_gpa": -float(np.trace(result.stress)) / 3 / GPa,
        "magnetic_moment": np.nan if moments is None else float(moments.sum()),
        "problem": result.problem,
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        Column("crystal", overflow="fold"),
        "formula",
        "E eV/atom",
        "max force eV/Å",
        "pressure GPa",
        "total moment μB",
        "problem",
        title="Single points",
        caption=left_out(rows),
    )
    for row in sorted(rows, key=lambda row: not row["problem"])[:ROWS_SHOWN]:
        table.add_row(
            row["name"],
            row["formula"],
            number(row["energy"], ".4f", "–"),
            number(row["max_force"], ".3f", "–"),
            number(row["pressure_gpa"], ".2f", "–"),
            number(row["magnetic_moment"], ".2f", "–"),
            row["problem"],
        )
    return table


def _write_evaluations(
    out: Path, crystals: Sequence[NamedCrystal], results: Sequence[Evaluation], rows: Sequence[dict[str, Any]]
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix not in FRAMES:
        with out.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        return
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = []
    for one, result in zip(crystals, results, strict=True):
        atoms = one.crystal.to_ase()
        atoms.info = {"name": one.name} | ({"problem": result.problem} if result.problem else {})
        if not result.problem:
            atoms.calc = SinglePointCalculator(
                atoms,
                energy=result.energy * len(atoms),
                forces=result.forces,
                stress=result.stress,
                magmoms=result.magmoms,
            )
        frames.append(atoms)
    ase.io.write(out, frames, format="extxyz")
