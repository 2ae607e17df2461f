"""Comparing a host with the training crystals: whether it is new to the model, and guest sites by ion substitution.

Unlike `model.generation.ion_substitution`, which makes whole crystals from the packaged prototypes, this module places
guests into a given host. It compares elements by Mendeleev number because it replaces host and guest elements together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Structure

from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns, read_crystals
from model.generation.ion_substitution import assignments

COLUMNS = ["split", "cell", "atomic_numbers", "frac_coords"]
CANDIDATES = 12  # prototypes tried per host


class TrainingCrystals:
    """Training crystals with which hosts are compared.

    Args:
        path: a file with the columns of the training data.
        wanted: (host, number of guests) of all cases; only training crystals relevant for these are indexed.

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
        """Whether no training crystal has this framework, either as a whole or after removing one of its elements.

        Frameworks are the same if they have the same reduced formula and pymatgen's StructureMatcher (stol 0.3, ltol
        0.2, cells scaled to equal volume) maps them onto each other.
        """
        matcher, own = StructureMatcher(stol=0.3, ltol=0.2), host.to_pymatgen()
        for row, out in self.by_formula.get(_reduced(host.numbers), []):
            known = self._crystal(row)
            if matcher.fit(own, known.select(known.numbers != out).to_pymatgen()):
                return False
        return True

    def substituted(self, host: Crystal, guest: str, count: int) -> list[Crystal]:
        """Crystals with ``count`` guests on the guest sites of the most similar training crystals, most similar first.

        A prototype has the same numbers of atoms of each element as the crystal to be made. Its elements are replaced
        such that Mendeleev numbers change least; the sum of the changes is its distance. If StructureMatcher (stol 0.5,
        ltol 0.3) then maps its host onto the given one, guests are placed at the corresponding sites.
        """
        made = []
        for row, names in self._nearest(host, guest, count)[:CANDIDATES]:
            places = _corresponding(host, self._crystal(row), names, guest)
            if places is not None and len(places) == count:
                made.append(host.join(Crystal(host.lattice, places, np.full(count, Element(guest).Z))))
        return made

    def _nearest(self, host: Crystal, guest: str, count: int) -> list[tuple[int, dict[int, int]]]:
        """(row, replacement of its elements) of the prototypes, nearest first."""
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
    counts = _counts(numbers)
    divisor = gcd(*counts.values())
    return tuple((element, count // divisor) for element, count in counts.items())


def _kind(host: np.ndarray, guests: int) -> tuple[tuple[int, ...], int]:
    return tuple(sorted(_counts(host).values())), guests


def _change(one: int, other: int) -> float:
    return abs(Element.from_Z(one).mendeleev_no - Element.from_Z(other).mendeleev_no)


def _renaming(from_host: np.ndarray, to_host: np.ndarray) -> tuple[float, dict[int, int]]:
    """Smallest total change of Mendeleev numbers, and the replacement of elements (equal counts) that achieves it."""
    choices = assignments(_counts(from_host), _counts(to_host))
    return min(((sum(map(_change, names, names.values())), names) for names in choices), key=lambda one: one[0])


def _counts(numbers: np.ndarray) -> dict[int, int]:
    elements, counts = np.unique(numbers, return_counts=True)
    return dict(zip(elements.tolist(), counts.tolist(), strict=True))


def _corresponding(host: Crystal, prototype: Crystal, names: dict[int, int], guest: str) -> np.ndarray | None:
    """Fractional positions (m, 3) of the prototype's guests in the host's cell; None if the hosts do not match."""
    renamed = prototype.replace(numbers=[names[number] for number in prototype.numbers.tolist()])
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10, primitive_cell=False, ignored_species=[guest])
    laid: Structure | None = matcher.get_s2_like_s1(host.to_pymatgen(), renamed.to_pymatgen())
    if laid is None:
        return None
    return np.array([site.frac_coords for site in laid if site.specie.symbol == guest]).reshape(-1, 3)
