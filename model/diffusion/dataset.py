"""Training crystals in memory, and batches of equal-sized crystals drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Composition, Element

from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns, read_crystals
from model.settings import Settings

Ratios = frozenset[tuple[int, int]]  # atomic numbers with the smallest whole numbers of atoms

GUESTS = ("Li", "Na", "K", "Mg", "Ca", "Zn", "Al")


class DataConfig(Settings):
    """Which crystals to train on."""

    path: str  # parquet file, columns as described in docs/training.md
    split: str = "train"
    max_atoms: int = 40
    max_e_above_hull: float = 0.1  # eV/atom
    held_out: str | None = None  # CSV file; crystals of its formulas are left out
    guests: tuple[str, ...] = GUESTS  # elements that are noised most often
    guest_weight: float = 3.0  # crystals that contain one of them are drawn this many times as often


@dataclass(frozen=True, eq=False)
class CrystalTable:
    """Crystals grouped by size.

    Attributes:
        groups: per size, the crystals with that many atoms.
        weights: per size, the relative frequency with which each is drawn.
        digest: hash of the crystals, for the checkpoint.
    """

    groups: dict[int, list[Crystal]]
    weights: dict[int, np.ndarray]
    digest: str

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def draw(self, atoms: int, rng: np.random.Generator, *, crystals: int | None = None) -> list[Crystal]:
        """Draw crystals of one size with about ``atoms`` atoms in all; on average each crystal by its weight.

        With ``crystals``, this number of crystals is drawn whatever their size.
        """
        counts = {size: crystals or max(1, atoms // size) for size in self.groups}
        return self._draw(rng, counts, {size: 1 if crystals else size for size in self.groups})

    def draw_edges(self, edges: int, rng: np.random.Generator, *, cutoff: float) -> list[Crystal]:
        """The same with about ``edges`` edges within ``cutoff`` Å, from the mean density of crystals of each size."""
        sphere = 4 / 3 * np.pi * cutoff**3
        counts = {size: max(1, int(edges / (sphere * density))) for size, density in self.pair_density.items()}
        return self._draw(rng, counts, {size: 1 / count for size, count in counts.items()})

    @cached_property
    def pair_density(self) -> dict[int, float]:
        """Per size, the mean of n²/V in 1/Å³: edges of a crystal per Å³ of the sphere with the cutoff as radius."""
        return {n: float(np.mean([n**2 / crystal.volume for crystal in group])) for n, group in self.groups.items()}

    def _draw(self, rng: np.random.Generator, counts: dict[int, int], due: dict[int, float]) -> list[Crystal]:
        """``counts`` crystals of one size, which is drawn with probability proportional to its weight times ``due``."""
        sizes = list(self.groups)
        share = np.array([self.weights[size].sum() * due[size] for size in sizes])
        size = sizes[rng.choice(len(sizes), p=share / share.sum())]
        weight = self.weights[size]
        chosen = rng.choice(len(weight), size=counts[size], p=weight / weight.sum())
        return [self.groups[size][i] for i in chosen]


def load_crystals(config: DataConfig) -> CrystalTable:
    """Read the crystals of one split; raises ValueError if there are none."""
    path, columns = Path(config.path), ["split", "n_atoms", "e_above_hull", "cell", "atomic_numbers", "frac_coords"]
    if not path.exists():
        raise ValueError(f"data.path: {path} does not exist; see docs/training.md for where training data come from")
    frame = read_columns(path, columns, see="docs/training.md")
    keep = (
        (frame["split"] == config.split)
        & frame["n_atoms"].between(2, config.max_atoms)
        & (frame["e_above_hull"] <= config.max_e_above_hull)
    )
    if config.held_out is not None:
        held_out = held_out_ratios(Path(config.held_out))
        counts = [np.unique(numbers, return_counts=True) for numbers in frame["atomic_numbers"]]
        keep &= np.array([_ratios(*pair) not in held_out for pair in counts])
    if not keep.any():
        raise ValueError(f"{path} contains no crystal of split {config.split!r} with 2 to {config.max_atoms} atoms")
    return group_by_size(read_crystals(frame[keep]), config)


def held_out_ratios(path: Path) -> set[Ratios]:
    """The formulas of a CSV file, in its column ``formula`` or ``pretty_formula``, as `Ratios`.

    Raises:
        ValueError: there is no such file or column.
    """
    if not path.exists():
        raise ValueError(f"data.held_out: {path} does not exist")
    table = pd.read_csv(path)
    column = next((name for name in ("formula", "pretty_formula") if name in table), None)
    if column is None:
        raise ValueError(f"data.held_out: {path} has no column 'formula'; there are {', '.join(table.columns)}")
    formulas = [Composition(formula) for formula in table[column]]
    return {
        _ratios([element.Z for element in one.elements], np.array(list(one.values()), dtype=int)) for one in formulas
    }


def _ratios(numbers: Sequence[int] | np.ndarray, counts: Sequence[int] | np.ndarray) -> Ratios:
    return frozenset(zip(map(int, numbers), map(int, np.array(counts) // np.gcd.reduce(counts)), strict=True))


def group_by_size(crystals: Sequence[Crystal], config: DataConfig) -> CrystalTable:
    """Group crystals for equal-sized batches."""
    favoured = [Element(symbol).Z for symbol in config.guests]
    groups: dict[int, list[Crystal]] = {}
    weights: dict[int, list[float]] = {}
    digest = hashlib.sha256()
    for crystal in crystals:
        groups.setdefault(len(crystal), []).append(crystal)
        has_guest = np.isin(favoured, crystal.numbers).any()
        weights.setdefault(len(crystal), []).append(config.guest_weight if has_guest else 1.0)
        digest.update(crystal.identity.encode())
    return CrystalTable(groups, {n: np.array(w) for n, w in weights.items()}, digest.hexdigest()[:16])
