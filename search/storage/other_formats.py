"""Reading POSCAR, extended XYZ, trajectories and all other formats that pymatgen or ASE read, without their guesses."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.io.formats import open_with_compression
from pymatgen.core import DummySpecies, Structure
from pymatgen.electronic_structure.core import Magmom
from pymatgen.io.vasp import Poscar

from search.storage.cif_elements import ELEMENTS
from search.storage.sites import Sites

FRAMES = {".extxyz", ".xyz", ".traj", ".db"}  # ASE formats that can contain many crystals
EXAMPLES = "CIF (.cif, .mcif), POSCAR (POSCAR*, *.vasp), extended XYZ (.extxyz, .xyz) or ASE trajectories (.traj)"
HARMLESS = re.compile("POTCAR|symmetry|deprecated", re.IGNORECASE)  # warnings of pymatgen that leave the atoms alone
SHOWN = 5  # atoms named in a warning


def text_of(path: Path) -> str:
    """The text of a file, which may be compressed; a byte-order mark is dropped."""
    with open_with_compression(os.fspath(path), "rb") as file:
        content = bytes(file.read())
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", errors="replace")


def is_poscar(path: Path) -> bool:
    """Whether a file has the name of a POSCAR."""
    named = re.search("POSCAR|CONTCAR", path.name, re.IGNORECASE) and path.suffix.lower() not in {".json", ".yaml"}
    return bool(named) or path.suffix.lower() == ".vasp"


def poscar_sites(text: str) -> Sites:
    """The sites of a POSCAR. If it lacks the line of symbols, they are those of its first line or of its atoms' lines.

    Raises:
        ValueError: the elements are unknown, or the format is wrong.
    """
    lines = text.splitlines()
    if len(lines) < 8:
        raise ValueError(f"a POSCAR has at least 8 lines, this file has {len(lines)}")
    names = [name.split("/")[0].split("_")[0] for name in lines[5].split()]
    counts, symbols, texts = lines[5].split(), None, []
    if counts and all(count.isdigit() for count in counts):
        symbols = _names_of_old_poscar(lines, counts)
        texts = [f"it lacks the line of element symbols; they were read as {' '.join(symbols)}"]
    else:
        _require_elements(names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the names, which are checked here
            poscar = Poscar.from_str(_with_plain_flags(lines), default_names=symbols, read_velocities=False)
    except IndexError as error:
        raise ValueError("it is not a POSCAR, or has fewer lines of atoms than its counts say") from error
    except ValueError as error:
        raise ValueError(f"it is not a POSCAR: {error}") from error
    return _of_structure(poscar.structure, texts)


def _names_of_old_poscar(lines: Sequence[str], counts: Sequence[str]) -> list[str]:
    """Symbols of a POSCAR without their line: one per count in its first line, or at the end of each atom's line."""
    comment = lines[0].split()
    if len(comment) == len(counts) and set(comment) <= ELEMENTS:
        return comment
    start = 8 if lines[6].strip()[:1].upper() == "S" else 7
    last = [(line.split() or [""])[-1] for line in lines[start : start + sum(map(int, counts))]]
    ends = np.cumsum([int(count) for count in counts]).tolist()
    groups = [set(last[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    if len(last) == ends[-1] and all(len(group) == 1 and group <= ELEMENTS for group in groups):
        return [group.pop() for group in groups]
    raise ValueError(
        f"this POSCAR does not say which elements its {' + '.join(counts)} atoms are. Insert a line with their "
        "symbols, such as `Mg O`, above the counts in line 6"
    )


def _with_plain_flags(lines: Sequence[str]) -> str:
    """The text with the flags of selective dynamics as T and F; VASP also reads t, .FALSE. and the like."""
    flag = re.compile(r"(?<=\s)\.?(t|f)(?:rue|alse)?\.?(?=\s|$)", re.IGNORECASE)
    return "\n".join([*lines[:8], *(flag.sub(lambda found: found[1].upper(), line) for line in lines[8:])])


def _require_elements(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in ELEMENTS and not name.isdigit()]
    if unknown:
        raise ValueError(f"line 6 names {', '.join(unknown)}, which is not an element; use symbols such as Li")


def pymatgen_sites(path: Path) -> Sites:
    """The sites of a file in any other format of pymatgen.

    Raises:
        ValueError: pymatgen does not know the format (``Unrecognized``), or an element is unknown.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structure = Structure.from_file(path)
    said = {" ".join(str(one.message).split()) for one in caught if issubclass(one.category, UserWarning)}
    unnamed = [text for text in said if "cannot be determined" in text]
    if unnamed:
        raise ValueError(f"it does not say which elements its atoms are ({unnamed[0]})")
    return _of_structure(structure, sorted(text for text in said if not HARMLESS.search(text)))


def _of_structure(structure: Structure, texts: Sequence[str]) -> Sites:
    """Sites of a pymatgen Structure; charges are dropped, so that ions of one element on a site are one."""
    species: list[dict[str, float]] = []
    for i, site in enumerate(structure, start=1):
        content: dict[str, float] = {}
        for kind, occupancy in site.species.items():
            if isinstance(kind, DummySpecies) or kind.symbol not in ELEMENTS:
                raise ValueError(f"atom {i} is {kind}, which is not an element; use symbols such as Li")
            content[kind.symbol] = content.get(kind.symbol, 0.0) + occupancy
        species.append(content)
    given = structure.site_properties
    moves = given.get("selective_dynamics")
    fixed, partly = (None, []) if moves is None else _fixed(np.array(moves, dtype=bool))
    moments = [one for one in given.get("magmom", ()) if one is not None]
    return Sites(
        lattice=structure.lattice.matrix,
        fractional=structure.frac_coords,
        species=species,
        labels=[f"atom {i} ({site.species_string})" for i, site in enumerate(structure, start=1)],
        moments=np.array([Magmom(one).global_moment for one in moments]) if len(moments) == len(species) else None,
        fixed=fixed,
        warnings=(*texts, *partly),
    )


def _fixed(moves: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """From (n, 3), which coordinates may move: (n,) the fixed atoms, and a warning of atoms fixed in part."""
    partly = np.flatnonzero(moves.any(axis=1) & ~moves.all(axis=1)) + 1
    fixed = np.logical_not(moves.all(axis=1))
    if not len(partly):
        return fixed if fixed.any() else None, []
    named = ", ".join(map(str, partly[:SHOWN])) + (f" and {len(partly) - SHOWN} more" if len(partly) > SHOWN else "")
    return fixed, [f"the file lets atoms move along some axes only ({named}): they count as fixed along all three"]


def ase_frames(path: Path) -> list[Atoms]:
    """All frames of a file in a format of ASE.

    Raises:
        ValueError: unknown format, or no frames.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            frames = ase.io.read(os.fspath(path), ":")
    except ase.io.formats.UnknownFileTypeError as error:
        raise ValueError(f"unknown file format; use {EXAMPLES}") from error
    if not frames:
        raise ValueError("it contains no crystals")
    return list(frames)


def atoms_sites(atoms: Atoms) -> Sites:
    """The sites of a frame.

    Raises:
        ValueError: it is not periodic, or an atom is not an element.
    """
    if not len(atoms):
        raise ValueError("it contains no atoms")
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ValueError("not periodic in three directions: give it a cell, with vacuum around a slab or molecule")
    dummies = [i for i, symbol in enumerate(atoms.symbols, start=1) if symbol not in ELEMENTS]
    if dummies:
        raise ValueError(f"atom {dummies[0]} is X, which is not an element; use symbols such as Li")
    moves, texts = _moves(atoms)
    fixed, partly = _fixed(moves)
    moments = atoms.get_initial_magnetic_moments().reshape(len(atoms), -1)
    if moments.shape[1] == 1:
        moments = np.pad(moments, ((0, 0), (2, 0)))
    return Sites(
        lattice=atoms.cell.array,
        fractional=atoms.cell.scaled_positions(atoms.positions),
        species=[{symbol: 1.0} for symbol in atoms.symbols],
        labels=[f"atom {i} ({symbol})" for i, symbol in enumerate(atoms.symbols, start=1)],
        moments=moments if moments.any() else None,
        fixed=fixed,
        warnings=(*texts, *partly),
    )


def _moves(atoms: Atoms) -> tuple[np.ndarray, list[str]]:
    """(n, 3), which coordinates may move, and a warning of constraints of other kinds."""
    moves = np.ones((len(atoms), 3), dtype=bool)
    others = set()
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            moves[constraint.index] = False
        elif isinstance(constraint, FixCartesian | FixScaled):
            moves[constraint.index] &= ~np.asarray(constraint.mask, dtype=bool)
        else:
            others.add(type(constraint).__name__)
    return moves, [f"its constraint {name} is not kept" for name in sorted(others)]
