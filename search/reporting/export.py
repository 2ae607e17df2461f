"""Exporting crystals of a run to the formats of other tools, each with the library that defines the format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.optimade import OptimadeStructureAdapter
from pymatgen.io.res import ResIO
from pymatgen.io.vasp import Poscar

from search.storage.cif import crystal_name, tolerances, write_cif
from search.storage.rows import unpack_or_raise

Row = Mapping[str, Any]


def export(best: pd.DataFrame, kind: str, folder: Path) -> list[Path]:
    """Write ranked candidates to a folder in one of the `FORMATS`; return the files.

    Raises:
        ValueError: an unknown format, or nothing to write.
    """
    if kind not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {kind!r}")
    if best.empty:
        raise ValueError("no relaxed crystal matches: raise --e-d-below, or omit --formula")
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[kind](best.to_dict("records"), folder)


def about(row: Row) -> dict[str, Any]:
    """Metadata of a crystal, for formats that support it: E_d (eV/atom; of each judge too), space group, origin."""
    keys = ("candidate", "formula", "e_d", "space_group", "known", "role", "parent", "potential", "reference")
    facts = {key: row[key] for key in keys if isinstance(row[key], str) or pd.notna(row[key])}
    for judge, e_d in row["judges"].items():
        facts["e_d_" + re.sub(r"\W+", "_", judge).strip("_")] = e_d  # ASE allows no other signs in a key
    return facts | ({"e_d_low": row["e_d_low"], "e_d_high": row["e_d_high"]} if row["judges"] else {})


def _each(ending: str, write_one: Callable[[Row, Path], None]) -> Callable[[list[Row], Path], list[Path]]:
    """A format with one file per crystal."""

    def write_all(rows: list[Row], folder: Path) -> list[Path]:
        paths = [folder / f"{crystal_name(row)}.{ending}" for row in rows]
        for row, path in zip(rows, paths, strict=True):
            write_one(row, path)
        return paths

    return write_all


def _poscar(row: Row, path: Path) -> None:
    comment = f"{row['formula']} {row['space_group']} E_d {1e3 * row['e_d']:.1f} meV/atom {row['candidate']}"
    Poscar(unpack_or_raise(row["final"]).to_pymatgen(), comment=comment, sort_structure=True).write_file(path)


def _res(row: Row, path: Path) -> None:
    crystal = unpack_or_raise(row["final"])
    notes = [f"{key} {value}" for key, value in about(row).items()]
    data = {"seed": row["candidate"], "pressure": row["pressure"], "rems": notes}
    entry = ComputedStructureEntry(crystal.to_pymatgen(), row["energy"] * len(crystal), data=data)
    ResIO.entry_to_file(entry, str(path))


def _atoms(row: Row) -> Any:
    crystal = unpack_or_raise(row["final"])
    atoms = crystal.to_ase()
    atoms.calc = SinglePointCalculator(atoms, energy=row["energy"] * len(crystal))
    return atoms


def _extxyz(rows: list[Row], folder: Path) -> list[Path]:
    every = [_atoms(row) for row in rows]
    for atoms, row in zip(every, rows, strict=True):
        atoms.info.update(about(row))
    write(folder / "crystals.extxyz", every, format="extxyz")
    return [folder / "crystals.extxyz"]


def _ase_db(rows: list[Row], folder: Path) -> list[Path]:
    path = folder / "crystals.db"
    path.unlink(missing_ok=True)
    with connect(path) as database:
        for row in rows:
            facts = about(row)
            facts["reduced_formula"] = facts.pop("formula")  # ASE reserves the key `formula`
            database.write(_atoms(row), key_value_pairs=facts)
    return [path]


def _optimade(rows: list[Row], folder: Path) -> list[Path]:
    """A response of an OPTIMADE server that has these structures and no others."""
    meta = {
        "api_version": "1.2.0",
        "query": {"representation": "/structures"},
        "more_data_available": False,
        "data_returned": len(rows),
        "data_available": len(rows),
        "provider": {
            "name": "hostguide",
            "description": "Crystals found by hostguide; energies and E_d in eV/atom",
            "prefix": "hostguide",
        },
        "implementation": {"name": "hostguide", "version": version("hostguide")},
    }
    path = folder / "structures.json"
    path.write_text(json.dumps({"meta": meta, "data": [_resource(row) for row in rows]}, indent=1) + "\n")
    return [path]


def _resource(row: Row) -> dict[str, Any]:
    crystal = unpack_or_raise(row["final"]).to_pymatgen()
    resource: dict[str, Any] = OptimadeStructureAdapter.get_optimade_structure(crystal)
    ours = {**about(row), "energy_per_atom": row["energy"]}
    attributes = resource["attributes"] | {f"_hostguide_{key}": value for key, value in ours.items()}
    return {"type": "structures", "id": row["candidate"], "attributes": attributes}


FORMATS: dict[str, Callable[[list[Row], Path], list[Path]]] = {
    "cif": _each("cif", lambda row, path: write_cif(unpack_or_raise(row["final"]), path, *tolerances(row))),
    "poscar": _each("vasp", _poscar),
    "res": _each("res", _res),
    "extxyz": _extxyz,
    "ase-db": _ase_db,
    "optimade-json": _optimade,
}
