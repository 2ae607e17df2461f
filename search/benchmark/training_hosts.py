"""What the training crystals already hold of a host: whether it is new to the model, and its guests by ion exchange."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Structure

from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns, read_crystals

COLUMNS = ["split", "cell", "atomic_numbers", "frac_coords"]
CANDIDATES = 12  # prototypes tried for one host


class Prototypes:
    """Training crystals that hosts are compared with.

    Args:
        path: a file with the columns of the training data.
        wanted: (host, number of guests) of all cases that will be asked about; only what may concern them is kept.

    Raises:
        ValueError: the file has no crystal of the split ``train``.
    """

    def __init__(self, path: Path, wanted: Sequence[tuple[Crystal, int]]) -> None:
        frame = read_columns(path, COLUMNS, see="docs/training.md")
        self.frame = frame[frame["split"] == "train"].reset_index(drop=True)
        if self.frame.empty:
            raise ValueError(f"{path} has no crystal of split 'train'")
        formulas = {_reduced(host.numbers) for host, _ in wanted}
        kinds = {_kind(host.numbers, guests) for host, guests in wanted}
        self.by_formula: dict[Any, list[tuple[int, int]]] = {}  # host's formula -> (row, element to take out or 0)
        self.by_kind: dict[Any, list[tuple[int, int]]] = {}  # counts of host and guests -> (row, guest element)
        for row, numbers in enumerate(self.frame["atomic_numbers"]):
            for out in (0, *np.unique(numbers).tolist()):
                host = numbers[numbers != out]
                if len(host) == 0:
                    continue
                if (formula := _reduced(host)) in formulas:
                    self.by_formula.setdefault(formula, []).append((row, out))
                if out and (kind := _kind(host, len(numbers) - len(host))) in kinds:
                    self.by_kind.setdefault(kind, []).append((row, out))

    def is_new(self, host: Crystal) -> bool:
        """Whether no training crystal has this framework, as it is or after one of its elements is taken out.

        Frameworks are the same if they have one reduced formula and pymatgen's StructureMatcher (stol 0.3, ltol 0.2,
        cells scaled to one volume) maps them onto each other.
        """
        matcher, own = StructureMatcher(stol=0.3, ltol=0.2), host.to_pymatgen()
        for row, out in self.by_formula.get(_reduced(host.numbers), []):
            known = self._crystal(row)
            if matcher.fit(own, known.select(known.numbers != out).to_pymatgen()):
                return False
        return True

    def exchanged(self, host: Crystal, guest: str, count: int) -> list[Crystal]:
        """Crystals with ``count`` guests where the nearest training crystals have theirs, the nearest first.

        A prototype has as many atoms of each kind as the crystal to be made. Its elements are renamed so that
        Mendeleev numbers change least; their sum of changes says how near it is. If StructureMatcher (stol 0.5,
        ltol 0.3) then maps its host onto the given one, its guests go to the corresponding places.
        """
        made = []
        for row, names in self._nearest(host, guest, count)[:CANDIDATES]:
            places = _corresponding(host, self._crystal(row), names, guest)
            if places is not None and len(places) == count:
                made.append(host.join(Crystal(host.lattice, places, np.full(count, Element(guest).Z))))
        return made

    def _nearest(self, host: Crystal, guest: str, count: int) -> list[tuple[int, dict[int, int]]]:
        """(row, renaming of its elements) of the prototypes, the nearest first."""
        found = []
        for row, out in self.by_kind.get(_kind(host.numbers, count), []):
            numbers = np.asarray(self.frame["atomic_numbers"][row])
            distance, names = _renaming(numbers[numbers != out], host.numbers)
            distance += _change(out, Element(guest).Z)
            found.append((distance, row, {**names, out: Element(guest).Z}))
        return [(row, names) for _, row, names in sorted(found, key=lambda one: one[:2])]

    def _crystal(self, row: int) -> Crystal:
        return read_crystals(self.frame.iloc[[row]])[0]


def _reduced(numbers: np.ndarray) -> tuple[tuple[int, int], ...]:
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = gcd(*counts.tolist())
    return tuple(zip(elements.tolist(), (counts // divisor).tolist(), strict=True))


def _kind(host: np.ndarray, guests: int) -> tuple[tuple[int, ...], int]:
    return tuple(sorted(np.unique(host, return_counts=True)[1].tolist())), guests


def _change(one: int, other: int) -> float:
    return abs(Element.from_Z(one).mendeleev_no - Element.from_Z(other).mendeleev_no)


def _renaming(from_host: np.ndarray, to_host: np.ndarray) -> tuple[float, dict[int, int]]:
    """The least change of Mendeleev numbers, and the renaming of elements with equal counts that achieves it."""
    old, old_counts = np.unique(from_host, return_counts=True)
    new, new_counts = np.unique(to_host, return_counts=True)
    choices = [
        (sum(map(_change, old.tolist(), order)), dict(zip(old.tolist(), order, strict=True)))
        for order in permutations(new.tolist())
        if all(
            dict(zip(new.tolist(), new_counts.tolist(), strict=True))[o] == c
            for o, c in zip(order, old_counts.tolist(), strict=True)
        )
    ]
    return min(choices, key=lambda one: one[0])


def _corresponding(host: Crystal, prototype: Crystal, names: dict[int, int], guest: str) -> np.ndarray | None:
    """(m, 3) fractional places of the prototype's guests in the host's cell; None if the hosts do not correspond."""
    renamed = prototype.replace(numbers=[names[number] for number in prototype.numbers.tolist()])
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10, primitive_cell=False, ignored_species=[guest])
    laid: Structure | None = matcher.get_s2_like_s1(host.to_pymatgen(), renamed.to_pymatgen())
    if laid is None:
        return None
    return np.array([site.frac_coords for site in laid if site.specie.symbol == guest]).reshape(-1, 3)
