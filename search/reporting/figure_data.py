"""The data of the figures, computed from the rows of a run. `figures` and `plots` draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import ClassVar

import numpy as np
import pandas as pd
from pymatgen.core import Composition
from pymatgen.entries import Entry

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import rounded_steps
from model.generators.roles import Role
from model.thermodynamics.stability import Stability
from search.storage.rows import Status, unpack_or_raise

CURVES = 8  # number of compositions whose progress is drawn


@dataclass(frozen=True, kw_only=True)
class HullPhase:
    """A phase of the reference.

    Attributes:
        formula: reduced formula.
        fractions: atomic fractions of `HullData.elements`, in their order.
        energy: formation energy, eV/atom.
    """

    formula: str
    fractions: tuple[float, ...]
    energy: float


@dataclass(frozen=True, kw_only=True)
class HullCandidate(HullPhase):
    """A relaxed candidate; its energy is the formation energy of the hull plus ``e_d`` (eV/atom).

    Attributes:
        e_d_range: eV/atom, the lowest and highest E_d by search and judges; None if nobody judged it.
    """

    candidate: str
    role: str
    space_group: str
    e_d: float
    e_d_range: tuple[float, float] | None = None

    @property
    def bars(self) -> tuple[float, float]:
        """Lengths of the error bar below and above, eV/atom; zero without judges."""
        low, high = self.e_d_range or (self.e_d, self.e_d)
        return self.e_d - low, high - self.e_d


@dataclass(frozen=True, kw_only=True)
class HullData:
    """The hull of a binary or ternary system, and the candidates.

    Attributes:
        elements: from the least to the most electronegative.
        stable: reference phases on the hull, sorted by the fraction of the last element.
        above: reference phases above the hull, sorted likewise.
        tie_lines: pairs of stable phases that an edge of the hull connects.
        found: relaxed candidates, in the order of the rows.
    """

    y_label: ClassVar[str] = "formation energy (eV/atom)"
    stable_label: ClassVar[str] = "reference hull"
    above_label: ClassVar[str] = "known, above hull"
    e_d_range: ClassVar[tuple[float, float]] = (-20, 200)  # meV/atom, for colours

    elements: tuple[str, ...]
    stable: list[HullPhase]
    above: list[HullPhase]
    tie_lines: list[tuple[HullPhase, HullPhase]]
    found: list[HullCandidate]

    @property
    def x_label(self) -> str:
        """Label of the axis of a binary system."""
        return f"fraction of {self.elements[-1]}"

    def name_place(self, phase: HullPhase) -> tuple[int, int]:
        """Position of the name of a stable binary phase, such that it overlaps neither the hull nor other names.

        Returns:
            The side of the hull's lowest phase (-1, 0 or 1), and the offset in lines, larger towards the lowest phase.
        """
        at, lowest = phase.fractions[-1], min(self.stable, key=lambda other: other.energy).fractions[-1]
        others = [other.fractions[-1] for other in self.stable]
        outer = sum(0 < other < at if at <= lowest else at < other < 1 for other in others)
        return 0 if at == lowest else 1 if at > lowest else -1, outer


@dataclass(frozen=True, kw_only=True)
class ProgressCurve:
    """Progress of one composition: its best E_d so far (meV/atom) at every improvement and at the end of the run."""

    formula: str
    minutes: list[float]
    e_d: list[float]


@dataclass(frozen=True, kw_only=True)
class ProgressData:
    """Progress of the `CURVES` compositions with the lowest E_d, lowest first."""

    x_label: ClassVar[str] = "CPU time (min)"
    y_label: ClassVar[str] = "best E_d so far (meV/atom)"

    curves: list[ProgressCurve]

    @property
    def e_d_range(self) -> tuple[float, float]:
        """Range of the axis, meV/atom; it leaves out very poor first results."""
        e_d = [value for curve in self.curves for value in curve.e_d]
        return min(-5, 1.1 * min(e_d, default=0)), min(300, 1.1 * max(e_d, default=0) + 5)


@dataclass(frozen=True, kw_only=True)
class SymmetryShares:
    """Percentage of crystals above P1 and P-1, and their number, for each number of atoms in the cell."""

    atoms: list[int]
    percent: list[float]
    crystals: list[int]


@dataclass(frozen=True, kw_only=True)
class SymmetryData:
    """Symmetry of the relaxed crystals of each role (CHGGen, Fig. 4f)."""

    x_label: ClassVar[str] = "atoms in the cell"
    y_label: ClassVar[str] = "above P1 and P-1 (%)"

    roles: dict[Role, SymmetryShares]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Values of the candidates of each role; the bins start at zero."""

    label: str
    bin_width: float
    values: dict[Role, list[float]]


@dataclass(frozen=True, kw_only=True)
class ChangesData:
    """Distance of candidates from their minima (CHGGen, Fig. 4a, b).

    Attributes:
        energy: decrease of the energy, eV/atom, at most 0.6.
        displacement: largest displacement of an atom, Å, at most 2.
    """

    y_label: ClassVar[str] = "candidates (%)"

    energy: Histogram
    displacement: Histogram


@dataclass(frozen=True, kw_only=True)
class FunnelData:
    """Number of candidates left after each step, and number dropped for each reason, rarest first."""

    left: dict[str, int]
    dropped: dict[str, int]


def relaxed(frame: pd.DataFrame) -> pd.DataFrame:
    """Candidates whose relaxation converged."""
    return frame[(frame["status"] == Status.RELAXED) & frame["e_d"].notna()]


def cpu_seconds(frame: pd.DataFrame) -> pd.Series:
    """CPU time of each candidate (s) for generation, relaxation and analysis, each on one core."""
    return frame[["seconds_generate", "seconds_relax", "seconds_analyse", "seconds_judge"]].fillna(0).sum(axis=1)


def _by_role(frame: pd.DataFrame) -> dict[Role, pd.DataFrame]:
    rows = relaxed(frame)
    return {role: rows[rows["role"] == role] for role in (Role.NEW, Role.FROM_HOST)}


def hull_data(frame: pd.DataFrame, stability: Stability) -> HullData | None:
    """Hull and candidates of a binary or ternary system; None for other numbers of elements."""
    if len(stability.elements) not in (2, 3):
        return None
    elements = tuple(sorted(stability.elements, key=lambda symbol: Composition(symbol).elements[0].X))
    diagram = stability.diagram

    @cache
    def fractions(formula: str) -> tuple[float, ...]:
        return tuple(float(Composition(formula).get_atomic_fraction(element)) for element in elements)

    @cache
    def on_hull(formula: str) -> HullPhase:
        share = dict(zip(elements, fractions(formula), strict=True))
        mixed = sum(share[element.symbol] * entry.energy_per_atom for element, entry in diagram.el_refs.items())
        energy = float(stability.hull_energy(formula) - mixed)
        return HullPhase(formula=formula, fractions=fractions(formula), energy=energy)

    def above_hull(entry: Entry) -> HullPhase:
        formula, energy = _formula(entry), diagram.get_form_energy_per_atom(entry)
        return HullPhase(formula=formula, fractions=fractions(formula), energy=energy)

    def place(phase: HullPhase) -> tuple[float, ...]:
        return (*phase.fractions[::-1], phase.energy)

    facets = [[_formula(diagram.qhull_entries[corner]) for corner in facet] for facet in diagram.facets]
    edges = sorted({(min(pair), max(pair)) for facet in facets for pair in combinations(facet, 2)})
    rows = relaxed(frame)
    columns = [rows["formula"], rows["candidate"], rows["role"], rows["space_group"].fillna("P1"), rows["e_d_believed"]]
    columns += [rows["e_d_low"], rows["e_d_high"]]
    return HullData(
        elements=elements,
        stable=sorted((on_hull(_formula(entry)) for entry in diagram.stable_entries), key=place),
        above=sorted(map(above_hull, diagram.unstable_entries), key=place),
        tie_lines=[(on_hull(first), on_hull(second)) for first, second in edges],
        found=[
            HullCandidate(
                formula=formula,
                fractions=fractions(formula),
                energy=on_hull(formula).energy + e_d,
                candidate=candidate,
                role=role,
                space_group=space_group,
                e_d=e_d,
                e_d_range=None if math.isnan(low) else (low, high),
            )
            for formula, candidate, role, space_group, e_d, low, high in zip(*columns, strict=True)
        ],
    )


def _formula(entry: Entry) -> str:
    return str(entry.composition.reduced_formula)


def progress_data(frame: pd.DataFrame) -> ProgressData:
    """Best E_d so far against CPU time, for the compositions with the best results."""
    frame = frame.sort_values(["round", "candidate"])
    spent = cpu_seconds(frame).cumsum() / 60
    rows = relaxed(frame)
    curves = []
    for formula in rows.groupby("formula")["e_d_believed"].min().nsmallest(CURVES).index:
        best = rows[rows["formula"] == formula]["e_d_believed"].cummin()
        new = best[best.diff().fillna(-1) < 0]
        minutes = [*spent[new.index], spent.iloc[-1]]
        curves.append(ProgressCurve(formula=formula, minutes=minutes, e_d=[*1e3 * new, 1e3 * best.iloc[-1]]))
    return ProgressData(curves=curves)


def symmetry_data(frame: pd.DataFrame) -> SymmetryData:
    """Share of relaxed crystals above P1 and P-1 by number of atoms, new and from hosts."""
    roles = {}
    for role, rows in _by_role(frame).items():
        symmetric = (rows["space_group_number"].fillna(1) > 2).groupby(rows["n_atoms"])
        share, count = symmetric.mean(), symmetric.size()
        roles[role] = SymmetryShares(
            atoms=share.index.tolist(), percent=(100 * share).tolist(), crystals=count.tolist()
        )
    return SymmetryData(roles=roles)


def changes_data(frame: pd.DataFrame) -> ChangesData:
    """Changes of energy and positions during relaxation, new and from hosts."""
    energy, ways = {}, {}
    for role, rows in _by_role(frame).items():
        energy[role] = (rows["energy_initial"] - rows["energy"]).clip(0, 0.6).tolist()
        ways[role] = [
            min(2.0, furthest_way(unpack_or_raise(initial), unpack_or_raise(final)))
            for initial, final in zip(rows["initial"], rows["final"], strict=True)
        ]
    return ChangesData(
        energy=Histogram(label="ΔE (eV/atom)", bin_width=0.02, values=energy),
        displacement=Histogram(label="largest displacement (Å)", bin_width=0.05, values=ways),
    )


def furthest_way(initial: Crystal, final: Crystal) -> float:
    """Largest displacement of an atom (Å), without the change of the cell and the common drift of all atoms."""
    way = rounded_steps(final.fractional - initial.fractional)
    way -= way.mean(axis=0)
    return float(np.linalg.norm(way @ final.lattice, axis=1).max())


def funnel_data(frame: pd.DataFrame) -> FunnelData:
    """How many candidates are left after each step, and the reasons for dropping the others."""
    good = relaxed(frame)
    distinct = good[good["duplicate_of"].isna()]
    left = {
        "candidates": len(frame),
        "passed screening": int((frame["status"] != Status.REJECTED).sum()),
        "relaxed": len(good),
        "distinct in batch": len(distinct),
        "E_d < 100 meV/atom": int((distinct["e_d_believed"] < 0.1).sum()),
        "E_d < 50 meV/atom": int((distinct["e_d_believed"] < 0.05).sum()),
    }
    dropped = frame[frame["reason"] != ""]["reason"].str.replace("_", " ").value_counts().sort_values()
    return FunnelData(left=left, dropped=dropped.to_dict())
