"""The one reader of crystal files: CIF, magnetic CIF, POSCAR, extended XYZ and all other formats of pymatgen and ASE.

Every command reads with it, and takes the identifier of a known phase, such as ``mp-149``, in place of a file
(`model.library`). What a file leaves open is decided in one way only, and said in ``warnings``; what is no
crystal is refused with the site, its value and the remedy.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from search.storage.cif_reading import cif_blocks, cif_sites
from search.storage.other_formats import (
    FRAMES,
    ase_frames,
    atoms_sites,
    is_poscar,
    poscar_sites,
    pymatgen_sites,
    text_of,
)
from search.storage.sites import Sites, checked, collinear, sites_of, with_warnings

CIF = {".cif", ".mcif"}
IDENTIFIER = re.compile(r"(mp|mvc)-\d+")
PACKED = {".gz", ".bz2", ".xz"}


@dataclass(frozen=True, eq=False)
class NamedCrystal:
    """A crystal of a file.

    Attributes:
        name: unique, that of its file, with a number if the file contains several crystals.
        crystal: as in the file: its cell, atoms in its order.
        moments: magnetic moments, μB: (n,) along their common axis, or (n, 3) Cartesian; None if the file gives none.
        fixed: (n,) bool, atoms that the file says must not move; None if it fixes none.
        warnings: what to tell the user about how it was read.
    """

    name: str
    crystal: Crystal
    moments: np.ndarray | None = None
    fixed: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NamedStructure:
    """The same as `NamedCrystal`, but sites may be shared or partly empty; elements have no charges."""

    name: str
    structure: Structure
    moments: np.ndarray | None = None
    fixed: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A block or frame of a file that cannot be read although others can, and why."""

    name: str
    problem: str


@dataclass(frozen=True, eq=False)
class FilesRead:
    """The crystals of files, in order, and the blocks and frames that cannot be read."""

    crystals: list[NamedCrystal] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Part:
    """A block or frame of a file: its sites, or why they cannot be read."""

    name: str
    label: str
    sites: Sites | None
    problem: str = ""


def read_files(paths: Sequence[Path]) -> FilesRead:
    """All crystals of all files, in order. Blocks and frames that cannot be read are listed if others can.

    Raises:
        ValueError: naming every file that cannot be read, and why.
    """
    found = FilesRead()
    problems, taken = [], set[str]()
    for path, stem in zip(paths, _stems(paths), strict=True):
        try:
            parts = [_ordered(part) for part in _parts(path, stem)]
        except ValueError as error:
            problems.append(f"{path}: {error}")
            continue
        if all(part.problem for part in parts):
            problems += [f"{path}: {_where(part)}{part.problem}" for part in parts]
            continue
        for part in parts:
            name = _free(part.name, taken)
            if part.sites is None:
                found.unreadable.append(Unreadable(name, f"{_where(part)}{part.problem}"))
            else:
                found.crystals.append(_named_crystal(name, part.sites))
    if problems:
        raise ValueError("\n  ".join(["these files cannot be read:", *problems]))
    return found


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken: a block of one file may be named like another file."""
    free = next(one for one in itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2))) if one not in taken)
    taken.add(free)
    return free


def read_crystal(path: str | Path) -> NamedCrystal:
    """The one crystal of a file; of several, the first block of a CIF, or the last frame of a trajectory.

    Raises:
        ValueError: no such file or known phase, no crystal in it, or partially occupied sites.
    """
    return _named_crystal(*_chosen(Path(path), _ordered))


def read_structure(path: str | Path) -> NamedStructure:
    """The same as `read_crystal`, with partially occupied sites.

    Raises:
        ValueError: no such file, or no crystal in it.
    """
    name, sites = _chosen(Path(path), lambda part: part)
    return NamedStructure(name, sites.structure(), _moments(sites), sites.fixed, sites.warnings)


def read_host(path: str | Path) -> Crystal:
    """For scripts: the crystal of `read_crystal`; what a command would tell the user becomes a Python warning.

    Raises:
        ValueError: no such file, no crystal in it, or partially occupied sites.
    """
    found = read_crystal(path)
    for text in found.warnings:
        warnings.warn(f"{path}: {text}", stacklevel=2)
    return found.crystal


def is_identifier(path: str | Path) -> bool:
    """Whether this names a known phase: written as the Materials Project does, and no file is called so."""
    return IDENTIFIER.fullmatch(str(path)) is not None and not Path(path).is_file()


def _stems(paths: Sequence[Path]) -> list[str]:
    """File names without extension if these differ, else the paths with hyphens instead of slashes."""
    stems = [_stem(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    longer = ["-".join(path.with_name(stem).parts).lstrip("/-.") for path, stem in zip(paths, stems, strict=True)]
    if len(set(longer)) < len(longer):
        longer = [f"{stem}-{i}" for i, stem in enumerate(stems, start=1)]
    return longer


def _stem(path: Path) -> str:
    bare = _unpacked(path)
    return bare.stem if bare.suffix.lower() in {*CIF, ".vasp", *FRAMES} else bare.name


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def _chosen(path: Path, prepared: Callable[[_Part], _Part]) -> tuple[str, Sites]:
    """The name and the part of a file that a command for one crystal takes, with a warning if there are others."""
    if is_identifier(path):
        return path.name, sites_of(packaged_library().crystal(path.name))
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    try:
        parts = [prepared(part) for part in _parts(path, _stem(path))]
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a crystal: {error}") from error
    readable = [(part, part.sites) for part in parts if part.sites is not None]
    if not readable:
        problems = "; ".join(f"{_where(part)}{part.problem}" for part in parts)
        raise ValueError(f"{path} cannot be read as a crystal: {problems}")
    part, sites = readable[0] if _unpacked(path).suffix.lower() in CIF else readable[-1]
    if len(parts) > 1:
        texts = [f"it has {len(parts)} crystals; {part.label} was taken"]
        texts += [f"{_where(other)}not read: {other.problem}" for other in parts if other.problem]
        sites = with_warnings(sites, *texts)
    return _stem(path), sites


def _parts(path: Path, stem: str) -> list[_Part]:
    """All blocks or frames of a file, numbered if there are several.

    Raises:
        ValueError: there is none, or they cannot be told apart.
    """
    if is_identifier(path):
        return [_Part(stem, "", sites_of(packaged_library().crystal(path.name)))]
    if not path.is_file():
        raise ValueError("no such file" if not path.is_dir() else "this is a folder; give the files in it")
    try:
        readers = _readers(path)
    except Exception as error:  # parsers raise whatever their format's library raises
        raise ValueError(_reason(error)) from error
    digits = len(str(len(readers)))
    names = [f"{stem}-{i:0{digits}d}" for i in range(1, len(readers) + 1)] if len(readers) > 1 else [stem]
    return [_part(name, *reader) for name, reader in zip(names, readers, strict=True)]


def _readers(path: Path) -> list[tuple[str, Callable[[], Sites]]]:
    """What each block or frame of a file is called, and how it is read."""
    bare = _unpacked(path)
    if bare.suffix.lower() in CIF:
        blocks = cif_blocks(text_of(path))
        if not blocks:
            raise ValueError("it contains no crystal: no block has `_atom_site_fract_x`")
        return [(f"block data_{name}" if len(blocks) > 1 else "", partial(cif_sites, tags)) for name, tags in blocks]
    if is_poscar(bare):
        return [("", partial(poscar_sites, text_of(path)))]
    if bare.suffix.lower() not in FRAMES:
        try:
            return [("", partial(lambda sites: sites, pymatgen_sites(path)))]
        except ValueError as error:
            if "Unrecognized" not in str(error):
                raise
    frames = ase_frames(path)
    return [(f"frame {i}" if len(frames) > 1 else "", partial(atoms_sites, one)) for i, one in enumerate(frames, 1)]


def _part(name: str, label: str, read: Callable[[], Sites]) -> _Part:
    try:
        return _Part(name, label, checked(read()))
    except Exception as error:  # as above
        return _Part(name, label, None, _reason(error))


def _ordered(part: _Part) -> _Part:
    """The part, with the reason if its sites are partially occupied."""
    if part.sites is None or part.sites.is_ordered:
        return part
    return replace(part, sites=None, problem=part.sites.disorder())


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__} {text}".strip()


def _where(part: _Part) -> str:
    return f"{part.label}: " if part.label else ""


def _named_crystal(name: str, sites: Sites) -> NamedCrystal:
    return NamedCrystal(name, sites.crystal(), _moments(sites), sites.fixed, sites.warnings)


def _moments(sites: Sites) -> np.ndarray | None:
    return None if sites.moments is None else collinear(sites.moments)
