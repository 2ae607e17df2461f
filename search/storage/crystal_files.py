"""Reading crystals from files: CIF, POSCAR, extxyz and all other formats that pymatgen or ASE supports."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser

from model.crystals.crystal import Crystal

FRAMES = {".extxyz", ".xyz", ".traj", ".db"}  # ASE formats that can contain many crystals
EXAMPLES = "CIF (.cif), POSCAR (POSCAR*, *.vasp), extended XYZ (.extxyz, .xyz) or ASE trajectories (.traj)"


@dataclass(frozen=True, eq=False)
class NamedCrystal:
    """A crystal and a unique name: that of its file, with a number if the file contains several crystals."""

    name: str
    crystal: Crystal


def read_files(paths: Sequence[Path]) -> list[NamedCrystal]:
    """All crystals of all files, in order.

    Raises:
        ValueError: naming every file that cannot be read, and why.
    """
    found: list[NamedCrystal] = []
    problems = []
    for path, stem in zip(paths, _stems(paths), strict=True):
        try:
            crystals = _read(path)
        except Exception as error:  # parsers raise whatever their format's library raises
            problems.append(f"{path}: {str(error).strip() or type(error).__name__}")
            continue
        digits = len(str(len(crystals)))
        names = [f"{stem}-{i:0{digits}d}" for i in range(1, len(crystals) + 1)] if len(crystals) > 1 else [stem]
        found += [NamedCrystal(name, crystal) for name, crystal in zip(names, crystals, strict=True)]
    if problems:
        raise ValueError("\n  ".join(["these files cannot be read:", *problems]))
    return found


def _stems(paths: Sequence[Path]) -> list[str]:
    """File names without extension if these differ, else the paths with hyphens instead of slashes."""
    stems = [path.stem if path.suffix.lower() in {".cif", ".vasp", *FRAMES} else path.name for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    longer = ["-".join(path.with_name(stem).parts).lstrip("/-.") for path, stem in zip(paths, stems, strict=True)]
    if len(set(longer)) < len(longer):
        longer = [f"{stem}-{i}" for i, stem in enumerate(stems, start=1)]
    return longer


def _read(path: Path) -> list[Crystal]:
    if not path.is_file():
        raise ValueError("no such file" if not path.is_dir() else "this is a folder; give the files in it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsers warn about details that do not affect atoms and cell
        if path.suffix.lower() in FRAMES:
            return _frames(path)
        if path.suffix.lower() == ".cif":
            return [Crystal.from_pymatgen(one) for one in CifParser(path).parse_structures(primitive=False)]
        try:
            return [Crystal.from_pymatgen(Structure.from_file(path))]
        except ValueError as error:
            if "Unrecognized" not in str(error):
                raise
        return _frames(path)


def _frames(path: Path) -> list[Crystal]:
    try:
        frames = ase.io.read(os.fspath(path), ":")
    except ase.io.formats.UnknownFileTypeError as error:
        raise ValueError(f"unknown file format; use {EXAMPLES}") from error
    if not frames:
        raise ValueError("it contains no crystals")
    for number, atoms in enumerate(frames, start=1):
        if not atoms.pbc.all() or atoms.cell.rank < 3:
            raise ValueError(f"frame {number} is not periodic in three directions")
    return [Crystal.from_ase(atoms) for atoms in frames]


def read_host(path: str | Path) -> Crystal:
    """Read a host from any file that pymatgen can read.

    Raises:
        ValueError: no such file, no crystal in it, or partially occupied sites.
    """
    return Crystal.from_pymatgen(read_structure(path))


def read_structure(path: str | Path) -> Structure:
    """Read the crystal of a file, including partially occupied sites.

    Raises:
        ValueError: no such file, or no crystal in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        return Structure.from_file(path)
    except Exception as error:  # pymatgen's parsers raise whatever the format's library raises
        raise ValueError(f"{path} cannot be read as a crystal: {error}") from error
