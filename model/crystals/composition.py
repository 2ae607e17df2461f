"""The atoms of a cell: all compositions of a system, mixtures of compounds, multiples of formulas, or exact counts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product

import numpy as np
from ase.data import atomic_numbers
from pymatgen.core import Composition, Element

MAX_RESULTS = 100_000
# Names of stoichiometries -> the same with letters for the elements.
FAMILIES = {
    "rocksalt": "AB",
    "fluorite": "AB2",
    "corundum": "A2B3",
    "perovskite": "ABC3",
    "spinel": "AB2C4",
    "olivine": "ABCD4",
    "garnet": "A2B3C3D12",
    "argyrodite": "AB6C5D",
    "elpasolite": "AB2CD6",
    "half-heusler": "ABC",
}


@dataclass(frozen=True)
class CellFormula:
    """The atoms of one cell, for example Li10Si4; equal if the counts are equal.

    Attributes:
        counts: (element, count) pairs, sorted by atomic number, every count at least 1.
    """

    counts: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if not self.counts:
            raise ValueError("a cell needs at least one atom, got no elements")
        for element, count in self.counts:
            _check_element(element)
            if count < 1 or count != int(count):
                raise ValueError(f"the count of {element} must be a whole number of at least 1, got {count}")
        ordered = sorted((element, int(count)) for element, count in self.counts)
        if len({element for element, _ in ordered}) != len(ordered):
            raise ValueError(f"an element is listed twice in {self.counts}")
        object.__setattr__(self, "counts", tuple(sorted(ordered, key=lambda pair: atomic_numbers[pair[0]])))

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> CellFormula:
        """Exact atom counts, for example ``{"Li": 10, "Si": 4}``; zero counts are left out."""
        return cls(tuple((element, count) for element, count in counts.items() if count != 0))

    @classmethod
    def parse(cls, formula: str) -> CellFormula:
        """Read a formula literally: ``Li10Si4`` is fourteen atoms."""
        return cls.from_counts(_parse(formula))

    @property
    def as_dict(self) -> dict[str, int]:
        """Element to count, in the order of atomic number."""
        return dict(self.counts)

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements, in the order of atomic number."""
        return tuple(element for element, _ in self.counts)

    @property
    def n_atoms(self) -> int:
        """Atoms in the cell."""
        return sum(count for _, count in self.counts)

    @cached_property
    def reduced(self) -> str:
        """Reduced formula as pymatgen writes it, for example ``Li5Si2`` (molecules stay: ``O2``)."""
        unit = math.gcd(*(count for _, count in self.counts))
        return _reduced(tuple((element, count // unit) for element, count in self.counts))

    @property
    def z(self) -> int:
        """Formula units in the cell."""
        return int(self.pymatgen.get_reduced_formula_and_factor()[1])

    @property
    def pymatgen(self) -> Composition:
        """The same as a pymatgen Composition."""
        return Composition(dict(self.counts))

    @property
    def numbers(self) -> np.ndarray:
        """(n_atoms,) int64 atomic numbers, ascending."""
        return np.repeat([atomic_numbers[element] for element, _ in self.counts], [count for _, count in self.counts])

    def fraction(self, element: str) -> float:
        """Atomic fraction of an element, 0 if it is absent."""
        return self.as_dict.get(element, 0) / self.n_atoms

    def __str__(self) -> str:
        return "".join(f"{element}{count if count > 1 else ''}" for element, count in self.counts)


@lru_cache(maxsize=200_000)
def _reduced(counts: tuple[tuple[str, int], ...]) -> str:
    return str(Composition(dict(counts)).get_reduced_formula_and_factor()[0])


def parse_system(system: str) -> tuple[str, ...]:
    """Elements of a chemical system such as ``Li-P-S``, in the order given."""
    elements = tuple(part.strip() for part in system.split("-"))
    for element in elements:
        _check_element(element)
    if len(set(elements)) != len(elements):
        raise ValueError(f"an element is listed twice in the chemical system {system!r}")
    return elements


def from_system(
    system: str,
    *,
    max_atoms: int,
    min_atoms: int = 1,
    composition_order: Iterable[Sequence[str]] = (),
    fractions: Mapping[str, tuple[float, float]] | None = None,
) -> list[CellFormula]:
    """Every composition of a chemical system that has all its elements and fits the atom budget.

    Args:
        system: elements joined by hyphens, ``Li-Si``.
        max_atoms: maximum number of atoms in a cell.
        min_atoms: minimum number of atoms in a cell.
        composition_order: chains of elements of strictly decreasing count; ``[["Li", "Si"]]`` means more Li than Si.
        fractions: lowest and highest atomic fraction of an element, inclusive, ``{"Li": (0.5, 0.9)}``.

    Raises:
        ValueError: an element is unknown or not in the system, the budget is empty, or no composition is left.

    Example:
        >>> [str(cell) for cell in from_system("Li-Si", max_atoms=4, composition_order=[["Li", "Si"]])]
        ['Li2Si', 'Li3Si']
    """
    elements = parse_system(system)
    _check_budget(min_atoms, max_atoms)
    chains = [tuple(chain) for chain in composition_order]
    bounds = dict(fractions or {})
    _check_constraints(elements, chains, bounds)

    found: list[CellFormula] = []
    for formula in _enumerate(elements, max(min_atoms, len(elements)), max_atoms):
        if not _allowed(formula, chains, bounds):
            continue
        if len(found) == MAX_RESULTS:
            raise ValueError(f"more than {MAX_RESULTS} compositions of {system} fit {max_atoms} atoms: lower max_atoms")
        found.append(formula)
    if not found:
        raise ValueError(
            f"no composition of {system} has {min_atoms} to {max_atoms} atoms with composition_order={chains} and "
            f"fractions={bounds}: raise max_atoms or loosen the constraints"
        )
    return found


def from_formulas(formulas: Iterable[str], *, max_atoms: int, min_atoms: int = 1) -> list[CellFormula]:
    """Every number of formula units Z of each listed formula that fits the atom budget.

    Raises:
        ValueError: a formula cannot be read, no Z of it fits the budget, or none is listed.
    """
    _check_budget(min_atoms, max_atoms)
    found: list[CellFormula] = []
    for formula in formulas:
        counts = _parse(formula)
        unit = np.gcd.reduce(list(counts.values()))
        smallest = {element: count // unit for element, count in counts.items()}
        atoms = sum(smallest.values())
        multiples = range(-(-min_atoms // atoms), max_atoms // atoms + 1)
        if not multiples:
            raise ValueError(
                f"no whole number of {formula} units ({atoms} atoms each) gives {min_atoms} to {max_atoms} atoms: "
                f"widen the budget, for example max_atoms={atoms * max(1, -(-min_atoms // atoms))}"
            )
        found += [CellFormula.from_counts({e: int(c * z) for e, c in smallest.items()}) for z in multiples]
    if not found:
        raise ValueError("no formula is listed: give at least one, for example ['Li5Si2']")
    return list(dict.fromkeys(found))


def from_terminals(terminals: Sequence[str], *, max_atoms: int, min_atoms: int = 1) -> list[CellFormula]:
    """Every mixture of whole formula units of compounds that fits the atom budget, for example of Li2S and P2S5.

    Args:
        terminals: formulas; each may be absent from a mixture.
        max_atoms: maximum number of atoms in a cell.
        min_atoms: minimum number of atoms in a cell.

    Raises:
        ValueError: a formula cannot be read, fewer than two are given, or no mixture fits the budget.

    Example:
        >>> [str(cell) for cell in from_terminals(["Li2S", "P2S5"], max_atoms=13, min_atoms=8)]
        ['Li6S3', 'Li2P2S6', 'Li8S4', 'Li4P2S7']
    """
    _check_budget(min_atoms, max_atoms)
    units = [_parse(formula) for formula in terminals]
    if len(units) < 2:
        raise ValueError(f"give at least two terminals, for example [Li2S, P2S5]; got {list(terminals)}")
    sizes = [sum(unit.values()) for unit in units]
    found: list[CellFormula] = []
    for amounts in product(*(range(max_atoms // size + 1) for size in sizes)):
        if not min_atoms <= sum(n * size for n, size in zip(amounts, sizes, strict=True)) <= max_atoms:
            continue
        counts: dict[str, int] = {}
        for amount, unit in zip(amounts, units, strict=True):
            for element, count in unit.items():
                counts[element] = counts.get(element, 0) + amount * count
        found.append(CellFormula.from_counts(counts))
        if len(found) > MAX_RESULTS:
            raise ValueError(f"more than {MAX_RESULTS} mixtures fit {max_atoms} atoms: lower max_atoms")
    if not found:
        raise ValueError(f"no mixture of {', '.join(terminals)} has {min_atoms} to {max_atoms} atoms: raise max_atoms")
    return sorted(dict.fromkeys(found), key=lambda cell: (cell.n_atoms, cell.counts))


def can_be_neutral(cell: CellFormula, valences: Mapping[str, Sequence[int]]) -> bool:
    """Whether atoms with these charges can add up to zero; atoms of one element may have different ones.

    >>> valences = {"Li": [1], "Mn": [2, 3, 4], "O": [-2]}
    >>> [can_be_neutral(CellFormula.parse(formula), valences) for formula in ("LiMn2O4", "Li3MnO2", "Li2O")]
    [True, False, True]
    """
    reachable = {0}
    for element, count in cell.counts:
        ways = _charges(tuple(sorted(set(valences[element]))), count)
        reachable = {total + charge for total in reachable for charge in ways}
    return 0 in reachable


@lru_cache(maxsize=10_000)
def _charges(valences: tuple[int, ...], count: int) -> frozenset[int]:
    """Total charges that a number of atoms of one element can have."""
    totals = frozenset({0})
    for _ in range(count):
        totals = frozenset(total + valence for total in totals for valence in valences)
    return totals


def usual_valences(elements: Iterable[str], given: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Charges that atoms of each element may have: those given, else those that pymatgen lists for the ICSD.

    Raises:
        ValueError: an element has none.
    """
    found = {}
    for element in elements:
        known = Element(element)
        usual = known.icsd_oxidation_states or known.common_oxidation_states
        found[element] = tuple(given.get(element) or usual)
    without = [element for element, some in found.items() if not some]
    if without:
        raise ValueError(
            f"valences: {', '.join(without)} has no usual charge; give it, for example {{{without[0]}: [0]}}"
        )
    return found


def has_stoichiometry(cell: CellFormula, families: Iterable[str]) -> bool:
    """Whether a formula belongs to one of some `FAMILIES`, by name or with letters for the elements (``ABC3``).

    Raises:
        ValueError: there is no such family.
    """
    wanted = {_anonymous(family) for family in families}
    return cell.pymatgen.anonymized_formula in wanted


@lru_cache(maxsize=1000)
def _anonymous(family: str) -> str:
    formula = FAMILIES.get(family, family)
    parts = re.findall(r"([A-Z])(\d*)", formula)
    if not parts or "".join(map("".join, parts)) != formula or len({letter for letter, _ in parts}) != len(parts):
        raise ValueError(
            f"families: {family!r} is none of {', '.join(FAMILIES)}, nor a formula with letters such as ABC3"
        )
    elements = ("H", "He", "Li", "Be", "B", "C", "N", "O", "F")
    counts = {element: int(count or 1) for element, (_, count) in zip(elements, parts, strict=False)}
    return str(Composition(counts).anonymized_formula)


def on_steps(cell: CellFormula, step: float) -> bool:
    """Whether all atomic fractions are multiples of ``step``."""
    shares = [count / cell.n_atoms / step for _, count in cell.counts]
    return all(abs(share - round(share)) < 1e-6 for share in shares)


def smallest_formulas(cells: Sequence[CellFormula], count: int) -> list[CellFormula]:
    """The cells of the reduced formulas with the fewest atoms, at most ``count`` of them."""
    first: dict[str, CellFormula] = {}
    for cell in sorted(cells, key=lambda one: (one.n_atoms, one.counts)):
        first.setdefault(cell.reduced, cell)
    kept = set(list(first)[:count])
    return [cell for cell in cells if cell.reduced in kept]


def _enumerate(elements: tuple[str, ...], min_atoms: int, max_atoms: int) -> Iterator[CellFormula]:
    for atoms in range(min_atoms, max_atoms + 1):
        for parts in _splits(atoms, len(elements)):
            yield CellFormula(tuple(zip(elements, parts, strict=True)))


def _splits(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ordered ways to write ``total`` as ``parts`` whole numbers of at least 1."""
    if parts == 1:
        yield (total,)
        return
    for first in range(1, total - parts + 2):
        for rest in _splits(total - first, parts - 1):
            yield (first, *rest)


def _allowed(formula: CellFormula, chains: list[tuple[str, ...]], bounds: Mapping[str, tuple[float, float]]) -> bool:
    counts = formula.as_dict
    for chain in chains:
        if any(counts[left] <= counts[right] for left, right in pairwise(chain)):
            return False
    tiny = 1e-9  # so that a bound of 1/3 written as 0.3333333333 keeps its own end
    return all(low - tiny <= formula.fraction(element) <= high + tiny for element, (low, high) in bounds.items())


def _check_constraints(
    elements: tuple[str, ...], chains: list[tuple[str, ...]], bounds: Mapping[str, tuple[float, float]]
) -> None:
    for chain in chains:
        if len(chain) < 2 or any(len(name) > 2 for name in chain):
            raise ValueError(
                f"each item of `composition_order` lists two or more elements, such as ['Li', 'Si'], got {chain}"
            )
    foreign = ({name for chain in chains for name in chain} | set(bounds)) - set(elements)
    if foreign:
        raise ValueError(f"constraints name {sorted(foreign)}, which are not in the system {'-'.join(elements)}")
    for element, (low, high) in bounds.items():
        if not 0 <= low <= high <= 1:
            raise ValueError(f"the fraction of {element} must satisfy 0 <= low <= high <= 1, got {low} and {high}")


def _check_budget(min_atoms: int, max_atoms: int) -> None:
    if not 1 <= min_atoms <= max_atoms:
        raise ValueError(f"the atom budget must satisfy 1 <= min_atoms <= max_atoms, got {min_atoms} and {max_atoms}")


def _check_element(element: str) -> None:
    if atomic_numbers.get(element, 0) == 0:
        raise ValueError(f"unknown element {element!r}: use symbols such as 'Li'")


def _parse(formula: str) -> dict[str, int]:
    try:
        counts = Composition(formula).as_dict()
    except ValueError as error:
        raise ValueError(f"cannot read the formula {formula!r}: write it like 'Li5Si2'") from error
    if not counts:
        raise ValueError(f"cannot read the formula {formula!r}: it has no elements")
    for element, count in counts.items():
        _check_element(element)
        if count != round(count):
            raise ValueError(f"the formula {formula!r} has the count {count} of {element}: use whole numbers")
    return {element: round(count) for element, count in counts.items()}
