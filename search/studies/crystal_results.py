"""Results of relaxing and evaluating crystals from files: table rows, CIFs and extended XYZ."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from ase.units import GPa
from pymatgen.io.cif import CifWriter

from model.crystals.crystal import Crystal
from model.potentials.interface import Evaluation
from model.relaxation.relax import Relaxation, may_be_ranked
from model.symmetry.space_group import space_group
from search.storage.crystal_files import NamedCrystal, Unreadable
from search.studies.crystal_stability import NONE, CrystalStability

SUMMARY = "summary.csv"
UNREADABLE = "unreadable"  # outcome of a block or frame that cannot be read
FRAMES = (".extxyz", ".xyz")  # file types for many crystals with energies and forces


def free_atoms(crystals: Sequence[NamedCrystal], elements: Sequence[str]) -> list[np.ndarray | None]:
    """(n,) bool per crystal, the atoms that may move: those of these elements that the file does not fix.

    None stands for all atoms. Without elements, all those that the file does not fix are free.

    Raises:
        ValueError: a crystal has no such atoms.
    """
    numbers = [atomic_numbers[element] for element in elements]
    masks: list[np.ndarray | None] = []
    for one in crystals:
        free = np.isin(one.crystal.numbers, numbers) if elements else np.ones(len(one.crystal), dtype=bool)
        if one.fixed is not None:
            free &= ~one.fixed
        masks.append(None if free.all() else free)
    without = [one.name for one, mask in zip(crystals, masks, strict=True) if mask is not None and not mask.any()]
    if elements and without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        raise ValueError(f"--free {', '.join(elements)}: no such atoms in {', '.join(without[:3])}{more}")
    return masks


class RelaxationFiles:
    """Writes each relaxed crystal as soon as it is done, so that nothing is lost if the program is interrupted.

    Args:
        out: a folder for CIFs and `SUMMARY`, or one file of the type `FRAMES`.
        crystals: that are relaxed.
        stability: gives their E_d.
        unreadable: blocks and frames that are not; they get a row at once.
        overwrite: whether existing results are replaced.
        pressure: external, GPa; unless it is 0, results have enthalpies too.

    Attributes:
        rows: those of `SUMMARY`, in the order in which the crystals were done.

    Raises:
        ValueError: another type of file, or existing results.
    """

    def __init__(
        self,
        out: Path,
        crystals: Sequence[NamedCrystal],
        stability: CrystalStability,
        unreadable: Sequence[Unreadable] = (),
        *,
        overwrite: bool = False,
        pressure: float = 0.0,
    ) -> None:
        self.out, self.crystals, self.frames = out, crystals, out.suffix in FRAMES
        self.stability, self.pressure = stability, pressure
        self.rows: list[dict[str, Any]] = []
        if out.suffix and not self.frames:
            raise ValueError(f"--out {out}: give a folder for CIFs, or a file that ends in .extxyz")
        files = [out] if self.frames else [out / SUMMARY, *(out / f"{one.name}.cif" for one in crystals)]
        _require_new(files, overwrite)
        (out.parent if self.frames else out).mkdir(parents=True, exist_ok=True)
        for path in files:
            path.unlink(missing_ok=True)
        for one in unreadable:
            self._add_row(_unread_row(one))

    def add(self, index: int, result: Relaxation) -> None:
        """Write one result; a crystal that failed always gets a row, but a CIF only if it can be ranked."""
        name = self.crystals[index].name
        energy, enthalpy = result.energy_final if may_be_ranked(result) else math.nan, math.nan
        if self.pressure and may_be_ranked(result):
            enthalpy = energy + self.pressure * GPa * result.final.volume / len(result.final)
        columns = {"enthalpy_final": enthalpy, **self.stability.columns(result.final, energy)}
        self._add_row(_relaxation_row(name, result, columns))
        if self.frames:
            ase.io.write(self.out, _frame(self.crystals[index], result, columns), format="extxyz", append=True)
        elif may_be_ranked(result):
            CifWriter(result.final.to_pymatgen()).write_file(self.out / f"{name}.cif")  # no symmetry imposed

    def cif(self, row: Mapping[str, Any]) -> str | None:
        """The CIF of a row, if it has one."""
        path = self.out / f"{row['name']}.cif"
        return str(path) if not self.frames and path.is_file() else None

    def _add_row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.frames:
            return
        with (self.out / SUMMARY).open("a", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.rows[0])
            if len(self.rows) == 1:
                table.writeheader()
            table.writerow(row)


def _require_new(paths: Sequence[Path], overwrite: bool) -> None:
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise ValueError(f"{existing[0]} exists: choose another --out, or give --overwrite to replace it")


def _frame(one: NamedCrystal, result: Relaxation, columns: Mapping[str, Any]) -> ase.Atoms:
    atoms = result.final.to_ase()
    if one.fixed is not None:
        atoms.set_constraint(FixAtoms(mask=one.fixed))
    atoms.info = {"name": one.name, "outcome": result.reason, "steps": result.steps, **_told(columns)}
    if may_be_ranked(result):
        energy = result.energy_final * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=result.forces_final)
    return atoms


def _told(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that are not empty."""
    return {key: value for key, value in columns.items() if value not in ("", None) and value == value}


def _relaxation_row(name: str, result: Relaxation, columns: Mapping[str, Any]) -> dict[str, Any]:
    """One line of `SUMMARY`; ``columns`` are those of enthalpy and stability."""
    known = may_be_ranked(result)
    group = space_group(result.final) if known else None
    return {
        "name": name,
        "formula": _formula(result.initial),
        "atoms": len(result.initial),
        "energy_initial": result.energy_initial,
        "energy_final": result.energy_final if known else math.nan,
        **columns,
        "max_force": result.max_force,
        "pressure_gpa": result.pressure,
        "volume_change_percent": 100 * (result.final.volume / result.initial.volume - 1) if known else math.nan,
        "space_group": "" if group is None else group.symbol,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "outcome": result.reason,
        "detail": result.detail,
    }


def _unread_row(one: Unreadable) -> dict[str, Any]:
    """The line of `SUMMARY` of a crystal that cannot be read."""
    numbers = ("energy_initial", "energy_final", "enthalpy_final", "max_force", "pressure_gpa", "volume_change_percent")
    return {
        "name": one.name,
        "formula": "",
        "atoms": 0,
        **dict.fromkeys(numbers, math.nan),
        **NONE,
        "space_group": "",
        "steps": 0,
        "seconds": 0.0,
        "outcome": UNREADABLE,
        "detail": one.problem,
    }


def _formula(crystal: Crystal) -> str:
    return crystal.composition.formula.replace(" ", "") if len(crystal) else ""


def check_evaluations_file(out: Path, *, overwrite: bool = False) -> None:
    """Check a file for evaluations before they are computed.

    Raises:
        ValueError: it is neither a CSV file nor of the type `FRAMES`, or it exists.
    """
    if out.suffix not in (".csv", *FRAMES):
        raise ValueError(f"--out {out}: the name must end in .csv (energies) or .extxyz (also forces and stress)")
    _require_new([out], overwrite)


def evaluation_row(one: NamedCrystal, result: Evaluation, stability: CrystalStability) -> dict[str, Any]:
    """One line of the CSV file of evaluations."""
    crystal, moments = one.crystal, result.magmoms
    return {
        "name": one.name,
        "formula": _formula(crystal),
        "atoms": len(crystal),
        "energy": result.energy,
        **stability.columns(crystal, math.nan if result.problem else result.energy),
        "max_force": float(np.linalg.norm(result.forces, axis=1).max()) if len(crystal) else math.nan,
        "pressure_gpa": -float(np.trace(result.stress)) / 3 / GPa,
        "magnetic_moment": math.nan if moments is None else float(moments.sum()),
        "problem": result.problem,
    }


def unread_evaluation_row(one: Unreadable) -> dict[str, Any]:
    """The line of the CSV file of a crystal that cannot be read."""
    numbers = dict.fromkeys(("energy", "max_force", "pressure_gpa", "magnetic_moment"), math.nan)
    return {"name": one.name, "formula": "", "atoms": 0, **numbers, **NONE, "problem": f"{UNREADABLE}: {one.problem}"}


def write_evaluations(
    out: Path, rows: Sequence[Mapping[str, Any]], crystals: Sequence[NamedCrystal], results: Sequence[Evaluation]
) -> None:
    """Write a CSV file of all rows, or extended XYZ with energies, forces, stresses and moments of those evaluated.

    Args:
        out: the file.
        rows: of the crystals, in order, and then of those that could not be read.
        crystals, results: evaluated crystals.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix in FRAMES:
        frames = [_evaluated(*each) for each in zip(crystals, results, rows, strict=False)]
        ase.io.write(out, frames, format="extxyz")
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def _evaluated(one: NamedCrystal, result: Evaluation, row: Mapping[str, Any]) -> ase.Atoms:
    atoms = one.crystal.to_ase()
    atoms.info = {"name": one.name, **_told({key: row[key] for key in (*NONE, "problem")})}
    if not result.problem:
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=result.energy * len(atoms),
            forces=result.forces,
            stress=result.stress,
            magmoms=result.magmoms,
        )
    return atoms
