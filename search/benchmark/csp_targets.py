"""The targets of a benchmark of crystal structure prediction: atoms of cells and, where known, the crystals."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from pymatgen.core import Composition

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns, read_crystals
from model.symmetry.space_group import space_group

SEE = "docs/benchmarks.md"
STRUCTURES = ("material_id", "cell", "atomic_numbers", "frac_coords")


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """A compound to be found.

    Attributes:
        name: identifier.
        cell: its atoms.
        crystal: the known one; None if there is only a formula.
        space_group: number of the known crystal's; None if unknown.
    """

    name: str
    cell: CellFormula
    crystal: Crystal | None
    space_group: int | None


def read_targets(
    path: Path,
    *,
    structures: Path | None = None,
    split: str | None = None,
    min_atoms: int = 1,
    max_atoms: int = 200,
    limit: int | None = None,
) -> tuple[list[Target], list[str]]:
    """Targets of a Parquet file of crystals, or of a CSV table.

    Args:
        path: Parquet with the columns of training data; or CSV with ``material_id`` and, for compounds whose crystal is
            not in ``structures``, ``pretty_formula`` and ``nsites`` (and ``spacegroup``), as CSPBench has them.
        structures: Parquet with the crystals of a CSV table.
        split: only this split of a Parquet file.
        min_atoms, max_atoms: in the cell.
        limit: maximum number of targets; a sample that is always the same, and part of that of a higher limit.

    Returns:
        the targets; and the reduced formulas that a blind search must not know besides the target's chemical system:
        those of the whole CSV table.

    Raises:
        ValueError: a file cannot be read, a row has neither crystal nor formula, or nothing is left.
    """
    if path.suffix == ".csv":
        targets = _from_table(path, structures)
        formulas = sorted({one.cell.reduced for one in targets})
    else:
        targets, formulas = _from_structures(path, split, (min_atoms, max_atoms), limit), []
    chosen = [one for one in targets if min_atoms <= one.cell.n_atoms <= max_atoms]
    if not chosen:
        raise ValueError(
            f"{path} has no target of {min_atoms} to {max_atoms} atoms{f' in split {split!r}' if split else ''}; "
            "change --split, --min-atoms or --max-atoms"
        )
    sample = _sample([one.name for one in chosen], limit)
    return [one for one in chosen if one.name in sample], formulas


def _sample(names: Sequence[str], limit: int | None) -> set[str]:
    """The first names in the order of a hash."""
    return set(sorted(names, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())[:limit])


def _from_structures(path: Path, split: str | None, atoms: tuple[int, int], limit: int | None) -> list[Target]:
    frame = read_columns(path, ["material_id", "n_atoms"], optional=["split"], see=SEE)
    if split is not None:
        if "split" not in frame:
            raise ValueError(f"{path} has no column split; omit --split")
        frame = frame[frame["split"] == split]
    frame = frame[frame["n_atoms"].between(*atoms)]
    names = sorted(_sample(frame["material_id"].astype(str).tolist(), limit))
    crystals = _crystals(path, names) if names else {}
    return [_known(name, crystals[name]) for name in names]


def _from_table(path: Path, structures: Path | None) -> list[Target]:
    try:
        table = pd.read_csv(path)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
    if "material_id" not in table:
        raise ValueError(f"{path} has no column material_id; there are {', '.join(table.columns)}")
    crystals = _crystals(structures, table["material_id"].tolist()) if structures else {}
    targets = []
    for row in table.to_dict("records"):
        name = str(row["material_id"])
        if name in crystals:
            known = _known(name, crystals[name])
        elif "pretty_formula" in row and "nsites" in row:
            cell = _cell(name, row["pretty_formula"], int(row["nsites"]))
            known = Target(name=name, cell=cell, crystal=None, space_group=None)
        else:
            raise ValueError(
                f"{path}: {name} has no crystal; give --structures with it, or the columns pretty_formula and nsites"
            )
        number = row.get("spacegroup")
        group = known.space_group if number is None or pd.isna(number) else int(number)
        targets.append(replace(known, space_group=group))
    return targets


def _cell(name: str, formula: str, atoms: int) -> CellFormula:
    unit = CellFormula.parse(formula)
    if atoms % unit.n_atoms:
        raise ValueError(f"{name}: {atoms} atoms are no whole number of formula units {formula}")
    return CellFormula.from_counts({e: n * (atoms // unit.n_atoms) for e, n in unit.counts})


def _crystals(path: Path, names: Sequence[str]) -> dict[str, Crystal]:
    frame = read_columns(path, STRUCTURES, see=SEE, filters=[("material_id", "in", list(names))])
    return dict(zip(frame["material_id"].astype(str), read_crystals(frame), strict=True))


def _known(name: str, crystal: Crystal) -> Target:
    group = space_group(crystal)
    return Target(
        name=name,
        cell=CellFormula.parse(Composition("".join(crystal.symbols)).formula.replace(" ", "")),
        crystal=crystal,
        space_group=group.number if group else None,
    )
