"""The hosts of a screen: from files, folders, Parquet tables, identifiers of known phases, and chemical systems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.data import chemical_symbols
from pymatgen.core import Composition

from model.crystals.composition import parse_system
from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns, read_crystals
from model.library.phases import Phase, packaged_library
from search.electrodes.config import Hosts
from search.storage.crystal_files import is_identifier, read_files

SUFFIXES = {".cif", ".mcif", ".vasp", ".extxyz", ".xyz", ".poscar"}  # read from folders
TABLE = (".parquet",)
ANY = "*"
SEE = "docs/electrodes.md"


@dataclass(frozen=True, eq=False, kw_only=True)
class Host:
    """A host of a screen, or what is wrong with it.

    Attributes:
        name: unique.
        source: file, table or library.
        crystal: as given; None if it could not be read.
        problem: why not.
    """

    name: str
    source: str
    crystal: Crystal | None = None
    problem: str = ""


def find_hosts(settings: Hosts) -> list[Host]:
    """All hosts, cheap ones first; what cannot be read is listed with the reason.

    Raises:
        ValueError: nothing is given, a file does not exist, an identifier or an element is unknown, or a system has no
            phase.
    """
    found = [host for name in settings.files for host in _of_argument(name)]
    found += [host for system in settings.systems for host in _of_system(system, settings)]
    if not found:
        raise ValueError("no host is given: name crystal files, folders, identifiers such as mp-25210, or --hosts V-O")
    distinct = _named_apart(found)
    return sorted(distinct, key=lambda host: (len(host.crystal) if host.crystal else 0, host.name))


def _of_argument(name: str) -> Iterator[Host]:
    path = Path(name)
    if is_identifier(name):
        yield _of_library(packaged_library().phase(name))
    elif path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES or "POSCAR" in one.name)
        if not files:
            raise ValueError(f"{path} contains no crystal file ({', '.join(sorted(SUFFIXES))} or POSCAR)")
        for file in files:
            yield from _of_file(file)
    elif not path.exists():
        raise ValueError(f"{name} is neither a file nor a folder nor the identifier of a known phase, such as mp-25210")
    elif path.suffix in TABLE:
        yield from _of_table(path)
    else:
        yield from _of_file(path)


def _of_file(path: Path) -> Iterator[Host]:
    try:
        read = read_files([path])
    except ValueError as error:
        reason = str(error).removeprefix("these files cannot be read:").strip().removeprefix(f"{path}: ")
        yield Host(name=path.stem, source=str(path), problem=reason)
        return
    for one in read.crystals:
        yield Host(name=one.name, source=str(path), crystal=one.crystal)
    for lost in read.unreadable:
        yield Host(name=lost.name, source=str(path), problem=lost.problem)


def _of_table(path: Path) -> Iterator[Host]:
    frame = read_columns(path, ["material_id", "cell", "atomic_numbers", "frac_coords"], see=SEE)
    for name, crystal in zip(frame["material_id"], read_crystals(frame), strict=True):
        yield Host(name=str(name), source=str(path), crystal=crystal)


def _of_library(phase: Phase) -> Host:
    return Host(name=phase.material_id, source="library", crystal=phase.crystal)


def _of_system(system: str, settings: Hosts) -> list[Host]:
    """The known phases of exactly these elements, up to the limits of the settings."""
    parts = [part.strip() for part in system.split("-")]
    if parts.count(ANY) > 1:
        raise ValueError(f"--hosts {system}: one element may be {ANY}, not several")
    named = parse_system("-".join(part for part in parts if part != ANY))
    every = [*named] if ANY not in parts else None
    systems = [every] if every else [[*named, one] for one in chemical_symbols[1:] if one not in named]
    library = packaged_library()
    phases = [
        phase
        for elements in systems
        for phase in library.phases(elements)
        if phase.e_above_hull <= settings.max_above_hull and elements_of(phase) == set(elements)
    ]
    if not phases:
        raise ValueError(f"--hosts {system}: the library of known phases has none of exactly these elements")
    return [_of_library(phase) for phase in phases if phase.n_atoms <= settings.max_atoms]


def elements_of(phase: Phase) -> set[str]:
    """The elements of a phase."""
    return set(Composition(phase.formula).get_el_amt_dict())


def _named_apart(hosts: Sequence[Host]) -> list[Host]:
    """Each host once; different ones of the same name get a number."""
    found: dict[str, Host] = {}
    for host in hosts:
        name, number = host.name, 1
        while name in found and not _same(found[name], host):
            number += 1
            name = f"{host.name}-{number}"
        found.setdefault(name, Host(name=name, source=host.source, crystal=host.crystal, problem=host.problem))
    return list(found.values())


def _same(one: Host, other: Host) -> bool:
    if one.crystal is None or other.crystal is None:
        return (one.source, one.problem) == (other.source, other.problem)
    return one.crystal.identity == other.crystal.identity
