"""`hostguide relax` and `hostguide evaluate`: the potential and the relaxer alone, on anyone's crystals."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.units import GPa
from pymatgen.io.cif import CifWriter
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from model.diffusion.checkpoint import default_device
from model.potentials.chgnet.potential import CHGNetPotential
from model.potentials.interface import Evaluation
from model.relaxation.relax import Relaxation, RelaxSettings, relax, usable
from model.symmetry.space_group import space_group
from search.storage.crystal_files import NamedCrystal, read_files

SHOWN = 40  # rows of a table on the terminal; the file holds all
CHUNK = 32  # crystals evaluated between two movements of the progress bar
FRAMES = (".extxyz", ".xyz")
SUMMARY = "summary.csv"


def relax_files(
    console: Console,
    files: Sequence[Path],
    settings: RelaxSettings,
    *,
    potential: str,
    free: Sequence[str],
    out: Path,
    overwrite: bool,
    batch: int,
    max_seconds: float,
    device: str,
    threads: int,
) -> bool:
    """Relax the crystals of some files; True if all of them converged.

    Args:
        console: where progress and table go.
        files: see `search.storage.crystal_files`.
        settings: of the relaxation.
        potential: ``chgnet-0.3.0`` or ``chgnet-r2scan``.
        free: elements that may move; all when empty.
        out: a folder for CIFs and a summary, or one .extxyz file.
        overwrite: replace results that are there.
        batch: crystals that relax together.
        max_seconds: wall time for all.
        device, threads: where to compute.

    Raises:
        ValueError: a file, an element or the place of the results cannot be used; nothing has been computed.
    """
    crystals = read_files(files)
    masks = _masks(crystals, free)
    writer = _Results(out, crystals, overwrite=overwrite)
    model = _load(potential, device, threads)
    console.print(
        f"{_count(crystals)}: {potential}, {settings.optimizer}, to {settings.fmax} eV/Å, cell {settings.cell}"
    )
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("relaxed", total=len(crystals))

        def done(index: int, result: Relaxation) -> None:
            writer.add(index, result)
            bar.advance(task)

        results = relax(
            [one.crystal for one in crystals],
            model,
            settings,
            free=masks,
            batch_size=batch,
            max_seconds=max_seconds,
            report=done,
        )
    console.print(_relaxed_table(writer.rows))
    console.print(f"{_reasons(results)}. Results: {out}", soft_wrap=True)
    return all(result.converged for result in results)


def evaluate_files(
    console: Console,
    files: Sequence[Path],
    *,
    potential: str,
    out: Path | None,
    overwrite: bool,
    device: str,
    threads: int,
) -> bool:
    """Energy, forces, stress and moments of the crystals of some files; True if all have an answer."""
    crystals = read_files(files)
    if out is not None:
        if out.suffix not in (".csv", *FRAMES):
            raise ValueError(f"--out {out}: the name must end in .csv (energies) or .extxyz (forces and stress too)")
        _refuse([out], overwrite)
    model = _load(potential, device, threads)
    results: list[Evaluation] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("evaluated", total=len(crystals))
        for start in range(0, len(crystals), CHUNK):
            some = crystals[start : start + CHUNK]
            results += model.evaluate([one.crystal for one in some])
            bar.advance(task, len(some))
    rows = [_evaluated(one, result) for one, result in zip(crystals, results, strict=True)]
    console.print(_evaluated_table(rows))
    if out is not None:
        _write_evaluations(out, crystals, results, rows)
        console.print(f"Results: {out}", soft_wrap=True)
    failed = sum(bool(result.problem) for result in results)
    if failed:
        console.print(f"{failed} of {len(results)} could not be evaluated.")
    return not failed


def _masks(crystals: Sequence[NamedCrystal], free: Sequence[str]) -> list[np.ndarray | None]:
    """(n,) bool per crystal of the atoms that may move."""
    if not free:
        return [None] * len(crystals)
    for element in free:
        if element not in atomic_numbers or element == "X":
            raise ValueError(f"--free {element!r} is not an element; use symbols such as Li")
    masks = [np.isin(one.crystal.numbers, [atomic_numbers[element] for element in free]) for one in crystals]
    without = [one.name for one, mask in zip(crystals, masks, strict=True) if not mask.any()]
    if without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        raise ValueError(f"--free {', '.join(free)}: there is none in {', '.join(without[:3])}{more}")
    return list(masks)


def _load(potential: str, device: str, threads: int) -> CHGNetPotential:
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device; leave it out to use the CPU")
    device = default_device() if device == "auto" else device
    return CHGNetPotential(potential.removeprefix("chgnet-"), device=device)


def _refuse(paths: Sequence[Path], overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise ValueError(f"{there[0]} exists: choose another --out, or --overwrite to replace it")


def _count(crystals: Sequence[NamedCrystal]) -> str:
    sizes = [len(one.crystal) for one in crystals]
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"{len(crystals)} crystal{'s' if len(crystals) > 1 else ''} of {span} atoms"


def _reasons(results: Sequence[Relaxation]) -> str:
    counts = Counter(result.reason for result in results)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


class _Results:
    """Writes each relaxed crystal as soon as it is done, so that a run that is stopped keeps what it has."""

    def __init__(self, out: Path, crystals: Sequence[NamedCrystal], *, overwrite: bool) -> None:
        self.out, self.crystals, self.frames = out, crystals, out.suffix in FRAMES
        self.rows: list[dict[str, Any]] = []
        if out.suffix and not self.frames:
            raise ValueError(f"--out {out}: give a folder for CIFs, or a file that ends in .extxyz")
        files = [out] if self.frames else [out / SUMMARY, *(out / f"{one.name}.cif" for one in crystals)]
        _refuse(files, overwrite)
        (out.parent if self.frames else out).mkdir(parents=True, exist_ok=True)
        for path in files:
            path.unlink(missing_ok=True)

    def add(self, index: int, result: Relaxation) -> None:
        """Write one result; a crystal that failed gets a row, and a file only if it has a structure and an energy."""
        name = self.crystals[index].name
        self.rows.append(_relaxed(name, result))
        if self.frames:
            ase.io.write(self.out, _frame(name, result), format="extxyz", append=True)
            return
        with (self.out / SUMMARY).open("a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.rows[0])
            if len(self.rows) == 1:
                table.writeheader()
            table.writerow(self.rows[-1])
        if usable(result):
            CifWriter(result.final.to_pymatgen()).write_file(self.out / f"{name}.cif")  # no symmetry imposed


def _frame(name: str, result: Relaxation) -> ase.Atoms:
    atoms = result.final.to_ase()
    atoms.info = {"name": name, "outcome": result.reason, "steps": result.steps}
    if usable(result):
        energy = result.energy_final * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=result.forces_final)
    return atoms


def _relaxed(name: str, result: Relaxation) -> dict[str, Any]:
    known = usable(result)
    group = space_group(result.final) if known else None
    return {
        "name": name,
        "formula": result.initial.composition.formula.replace(" ", "") if len(result.initial) else "",
        "atoms": len(result.initial),
        "energy_initial": result.energy_initial,
        "energy_final": result.energy_final if known else np.nan,
        "max_force": result.max_force,
        "pressure_gpa": result.pressure,
        "volume_change_percent": 100 * (result.final.volume / result.initial.volume - 1) if known else np.nan,
        "space_group": "" if group is None else group.symbol,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "outcome": result.reason,
        "detail": result.detail,
    }


def _relaxed_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Failures first, since they are what one has to look at."""
    table = Table(
        _name(),
        "formula",
        "E eV/atom",
        "gained meV/atom",
        "max force eV/Å",
        "volume %",
        "space group",
        "steps",
        "outcome",
        title="Relaxed crystals",
        caption=_left_out(rows),
    )
    for row in sorted(rows, key=lambda row: row["outcome"] == "converged")[:SHOWN]:
        table.add_row(
            row["name"],
            row["formula"],
            _number(row["energy_final"], ".4f"),
            _number(1e3 * (row["energy_initial"] - row["energy_final"]), ".1f"),
            _number(row["max_force"], ".3f"),
            _number(row["volume_change_percent"], "+.1f"),
            row["space_group"],
            str(row["steps"]),
            row["outcome"] + (f": {row['detail']}" if row["detail"] else ""),
        )
    return table


def _evaluated(one: NamedCrystal, result: Evaluation) -> dict[str, Any]:
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


def _evaluated_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        _name(),
        "formula",
        "E eV/atom",
        "max force eV/Å",
        "pressure GPa",
        "sum of moments μB",
        "problem",
        title="Single points",
        caption=_left_out(rows),
    )
    for row in sorted(rows, key=lambda row: not row["problem"])[:SHOWN]:
        table.add_row(
            row["name"],
            row["formula"],
            _number(row["energy"], ".4f"),
            _number(row["max_force"], ".3f"),
            _number(row["pressure_gpa"], ".2f"),
            _number(row["magnetic_moment"], ".2f"),
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


def _name() -> Column:
    return Column("crystal", overflow="fold")


def _left_out(rows: Sequence[Any]) -> str | None:
    return f"and {len(rows) - SHOWN} more in the file" if len(rows) > SHOWN else None


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "–"
