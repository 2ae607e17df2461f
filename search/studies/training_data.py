"""Preparing training data from a Parquet file, a folder of CIF files or an ASE database."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ase.db
import numpy as np
import pandas as pd
from pymatgen.core import Lattice

from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns
from model.crystals.screening import screen
from model.diffusion.dataset import GUESTS
from model.files import written_whole
from model.potentials.interface import Potential
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Stability
from search.storage.crystal_files import read_files
from search.storage.other_formats import atoms_sites
from search.storage.sites import checked

BATCH = 32  # crystals that the potential evaluates at once


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """A crystal of the source.

    Attributes:
        name: unique in its source.
        crystal: as stored; None if it could not be read.
        e_above_hull: eV/atom, if the source provides it.
        split: if the source provides it.
        problem: why it is dropped; empty if it is kept.
    """

    name: str
    crystal: Crystal | None
    e_above_hull: float | None = None
    split: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Filters:
    """Which crystals are kept.

    Attributes:
        max_atoms: maximum number of atoms in the cell; cells of one atom are dropped too.
        max_e_above_hull: eV/atom.
        without: excluded elements.
    """

    max_atoms: int = 250
    max_e_above_hull: float = 0.1
    without: tuple[str, ...] = ()


def read_source(source: Path) -> Iterator[Entry]:
    """All crystals of a source: ``.parquet``, ``.db`` (ASE), or a folder with ``.cif`` files at any depth.

    Raises:
        ValueError: it is none of these, or empty.
    """
    if source.is_dir():
        files = sorted(source.rglob("*.cif"))
        if not files:
            raise ValueError(f"{source} contains no .cif file")
        return (entry for file in files for entry in _from_cif(file, str(file.relative_to(source))))
    if not source.is_file():
        raise ValueError(f"{source} does not exist: give a .parquet file, an ASE .db file, or a folder of .cif files")
    if source.suffix == ".parquet":
        return _from_parquet(source)
    if source.suffix == ".db":
        return _from_ase(source)
    raise ValueError(f"{source}: give a .parquet file, an ASE .db file, or a folder of .cif files")


def _from_cif(file: Path, name: str) -> Iterator[Entry]:
    """All crystals of a CIF; a crystal that a command would read with a warning is dropped, as nobody sees it here."""
    try:
        found = read_files([file])
    except ValueError as error:
        yield Entry(name=name, crystal=None, problem=_unreadable(str(error).split(f"{file}: ", 1)[-1]))
        return
    for one in found.unreadable:
        yield Entry(name=name + one.name.removeprefix(file.stem), crystal=None, problem=_unreadable(one.problem))
    for crystal in found.crystals:
        yield Entry(
            name=name + crystal.name.removeprefix(file.stem),
            crystal=crystal.crystal,
            problem=f"doubtful: {'; '.join(crystal.warnings)}" if crystal.warnings else "",
        )


def _unreadable(text: str) -> str:
    return "partial occupancy" if "partially occupied" in text else f"unreadable: {text}"


def _from_parquet(source: Path) -> Iterator[Entry]:
    columns = ["material_id", "cell", "atomic_numbers", "frac_coords"]
    frame = read_columns(source, columns, optional=["e_above_hull", "split"], see="docs/training.md")
    for row in frame.to_dict("records"):
        lattice = Lattice.from_parameters(*row["cell"]).matrix
        crystal = Crystal(lattice, np.asarray(row["frac_coords"]).reshape(-1, 3), row["atomic_numbers"])
        energy, split = row.get("e_above_hull"), row.get("split")
        known = energy is not None and np.isfinite(energy)
        yield Entry(
            name=str(row["material_id"]),
            crystal=crystal,
            e_above_hull=float(energy) if known else None,
            split=split or None,
        )


def _from_ase(source: Path) -> Iterator[Entry]:
    with ase.db.connect(source) as database:
        for row in database.select():
            name = str(row.get("material_id", row.id))
            try:
                crystal = checked(atoms_sites(row.toatoms())).crystal()
            except ValueError as error:
                yield Entry(name=name, crystal=None, problem=_unreadable(str(error)))
                continue
            energy = row.get("e_above_hull")
            yield Entry(
                name=name,
                crystal=crystal,
                e_above_hull=None if energy is None else float(energy),
                split=row.get("split"),
            )


def filtered(entries: Iterable[Entry], filters: Filters) -> Iterator[Entry]:
    """The entries, with ``problem`` set for those to drop; energies above the hull are not checked yet."""
    seen: dict[str, str] = {}
    for entry in entries:
        problem = entry.problem or _problem(entry, filters)
        if not problem and entry.crystal is not None:
            first = seen.setdefault(entry.crystal.identity, entry.name)
            problem = "" if first == entry.name else f"same as {first}"
        yield replace(entry, problem=problem)


def _problem(entry: Entry, filters: Filters) -> str:
    assert entry.crystal is not None
    if not 2 <= len(entry.crystal) <= filters.max_atoms:
        return f"not 2 to {filters.max_atoms} atoms"
    unwanted = sorted(set(entry.crystal.symbols) & set(filters.without))
    if unwanted:
        return f"contains {', '.join(unwanted)}"
    return screen(entry.crystal) or ""


def judged(
    entries: Sequence[Entry], potential: Potential | None, reference: Reference, filters: Filters
) -> Iterator[Entry]:
    """The entries with their energy above the hull, with ``problem`` set for those too far above it.

    If the source does not provide it, ``potential`` evaluates the unrelaxed crystal, and ``reference``, which must be
    of the same potential, gives the hull. Without a potential, such crystals are dropped.
    """
    for start in range(0, len(entries), BATCH):
        some = list(entries[start : start + BATCH])
        asked = [entry for entry in some if not entry.problem and entry.e_above_hull is None]
        found: dict[str, Entry] = {}
        if asked and potential is not None:
            results = potential.evaluate([entry.crystal for entry in asked if entry.crystal is not None])
            for entry, result in zip(asked, results, strict=True):
                found[entry.name] = _above_hull(entry, result.energy, result.problem, reference)
        for entry in some:
            yield _near_hull(found.get(entry.name, entry), filters)


def _above_hull(entry: Entry, energy: float, problem: str, reference: Reference) -> Entry:
    assert entry.crystal is not None
    if problem:
        return replace(entry, problem=f"no energy: {problem}")
    try:
        hull = Stability(reference, sorted(set(entry.crystal.symbols)))
    except ValueError as error:
        return replace(entry, problem=f"no hull: {error}")
    return replace(entry, e_above_hull=energy - hull.hull_energy(entry.crystal.composition))


def _near_hull(entry: Entry, filters: Filters) -> Entry:
    if entry.problem:
        return entry
    if entry.e_above_hull is None:
        return replace(entry, problem="energy above the hull unknown")
    above = entry.e_above_hull > filters.max_e_above_hull
    return replace(entry, problem=f"more than {filters.max_e_above_hull:g} eV/atom above the hull" if above else "")


def split_of(formula: str, *, val: float, test: float, seed: int) -> str:
    """``train``, ``val`` or ``test``: all crystals of a formula get the same split, independent of the other data."""
    digest = hashlib.blake2b(f"{seed}/{formula}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    return "val" if draw < val else "test" if draw < val + test else "train"


def table(entries: Iterable[Entry], *, val: float, test: float, seed: int) -> pd.DataFrame:
    """Rows of the training data, see docs/training.md; in ``test`` rows, ``guest`` is a usual guest element, if any."""
    rows = []
    for entry in entries:
        if entry.problem or entry.crystal is None:
            continue
        crystal = entry.crystal
        split = entry.split or split_of(crystal.formula, val=val, test=test, seed=seed)
        present = set(crystal.symbols)
        guest = next((element for element in GUESTS if element in present and len(present) > 1), "")
        lattice = Lattice(crystal.lattice)
        rows.append(
            {
                "material_id": entry.name,
                "formula": crystal.formula,
                "n_atoms": len(crystal),
                "cell": [*lattice.abc, *lattice.angles],
                "atomic_numbers": crystal.numbers.tolist(),
                "frac_coords": crystal.fractional.ravel().tolist(),
                "e_above_hull": entry.e_above_hull,
                "split": split,
                "guest": guest if split == "test" else "",
            }
        )
    return pd.DataFrame(rows)


def reasons(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """Reasons for dropping crystals and their counts, most common first, without details of single crystals."""
    kinds = Counter(_kind(entry.problem) for entry in entries if entry.problem)
    return kinds.most_common()


def _kind(problem: str) -> str:
    for start in ("same as", "unreadable", "doubtful", "no hull", "no energy"):
        if problem.startswith(start):
            return start if start != "same as" else "same as another"
    return problem


def write(frame: pd.DataFrame, entries: Iterable[Entry], out: Path) -> Path:
    """Write the data, and next to them a CSV file of dropped crystals and reasons; returns the path of the CSV."""
    dropped = out.with_suffix(".dropped.csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out) as temporary:
        frame.to_parquet(temporary)
    rows = [(entry.name, entry.problem) for entry in entries if entry.problem]
    pd.DataFrame(rows, columns=["material_id", "reason"]).to_csv(dropped, index=False)
    return dropped
