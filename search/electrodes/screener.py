"""Screening one host with one ion: what may be given up at once, the contents from empty to full, and their rows."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from pymatgen.core import Composition

from model.analysis.coordination import neighbour_shells
from model.analysis.electrode import average_voltage, guest_limit, spread_contents, supercell_for
from model.analysis.voltage import ion_charge
from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from model.potentials.catalog import find_entry, load_potential, require_known
from model.potentials.interface import Potential
from model.relaxation.polish import Polished
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax
from model.symmetry.space_group import space_group
from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.electrodes.config import ScreenConfig
from search.electrodes.curves import electrode
from search.electrodes.filling import Filled, HostFiller
from search.electrodes.rows import ElectrodeRow, Outcome
from search.storage.rows import StoredCrystal
from search.studies.guest_paths import percolation
from search.studies.inpaint import most_that_fit

GAVE_UP = {  # reasons, as in the rows and in docs/electrodes.md
    "unreadable": "the file could not be read",
    "unknown_element": "the potential does not know one of its elements",
    "contains_guest": "the host contains the ion already; --extract takes it out",
    "no_guest": "with --extract: it contains no such ion",
    "only_guest": "it consists of the ion alone",
    "too_large": "more atoms than hosts.max_atoms",
    "no_electrons": "no element of the host can be reduced: it takes up no ion",
    "no_room": "no room for a single guest",
    "e_d": "the empty host lies further above the hull than giving_up.max_e_d",
    "collapsed": "the empty host is no longer this framework",
    "no_voltage": "no content is reached at a positive voltage",
    "voltage": "the content before has an average voltage below giving_up.min_voltage",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ScreenTask:
    """One host with one ion.

    Attributes:
        identity: name of the task.
        source, host: where the host comes from, and its name.
        guest: element.
        crystal: as given; None if it could not be read, because of ``problem``.
        seed: of the placements.
    """

    identity: str
    host: str
    source: str
    guest: str
    crystal: Crystal | None
    problem: str
    seed: int


@dataclass(frozen=True, eq=False, kw_only=True)
class _Job:
    """A task on its way: the empty host in the cell that is filled, and what all its rows have in common."""

    task: ScreenTask
    host: Crystal
    known: Crystal | None  # with --extract, the crystal as given in this cell, host atoms first
    most: int
    units: float
    common: Mapping[str, Any]


class Screener:
    """Computes tasks; owns score model, potential and, if there is one, the judge.

    Args:
        config: of the screen.
    """

    def __init__(self, config: ScreenConfig) -> None:
        self.config = config
        self.filler = HostFiller(config.potential, config.weights, config.filling)
        self.judge = load_potential(config.judge) if config.judge else None
        self._reference = packaged_reference(config.potential) if find_entry(config.potential).reference else None
        self._elements: dict[tuple[str, str], float] = {}

    def screen(self, task: ScreenTask) -> list[ElectrodeRow]:
        """The rows of a task: content 0 first, or a single row with the reason why it was not tried."""
        began = time.process_time()
        job = self._prepared(task)
        if isinstance(job, ElectrodeRow):
            return [job]
        empty, kept, moved = self.filler.empty(job.host)
        stability = self._stability(job)
        first = self._row(job, 0, empty, (kept, moved), stability)
        if not kept:  # layers that drift apart have no volume of their own
            first = replace(first, volume=job.host.volume / job.units)
        rows = [replace(first, seconds=time.process_time() - began)]
        if (reason := self._hopeless(first)) is not None:
            rest = [self._given_up(job, count, reason) for count in self._contents(job)]
            return rows + rest
        start = empty.final if first.host_kept else job.host
        for count in self._contents(job):
            if self._is_enough(first, rows[-1]):
                rows.append(self._given_up(job, count, "voltage"))
            else:
                rows.append(self._filled(job, start, count, first, stability))
        return self._with_paths(rows, job)

    def _is_enough(self, first: ElectrodeRow, last: ElectrodeRow) -> bool:
        """Whether more guests than in the last row need not be tried."""
        if last.status == Outcome.FILLED:
            return self._voltage(first, last) < self.config.giving_up.min_voltage
        return last.reason == "voltage"

    # --- before anything is computed ----------------------------------------------------------------------------------

    def _prepared(self, task: ScreenTask) -> _Job | ElectrodeRow:
        """The host in the cell that is filled, or the row that says why it is not tried."""
        common: dict[str, Any] = {
            "task": task.identity,
            "host": task.host,
            "source": task.source,
            "guest": task.guest,
            "potential": self.config.potential,
            "score_model": self.filler.maker.version,
        }

        def not_tried(reason: str) -> ElectrodeRow:
            return ElectrodeRow(**common, status=Outcome.GIVEN_UP, reason=reason)

        if task.crystal is None:
            return ElectrodeRow(**common, status=Outcome.FAILED, reason=f"unreadable: {task.problem}")
        mask = np.array(task.crystal.symbols) == task.guest
        if mask.any() and not self.config.extract:
            return not_tried("contains_guest")
        if self.config.extract and not mask.any():
            return not_tried("no_guest")
        if mask.all():
            return not_tried("only_guest")
        host = task.crystal.select(~mask)
        common |= {"host_formula": host.formula, "charge": ion_charge(task.guest)}
        if len(host) > self.config.hosts.max_atoms:
            return not_tried("too_large")
        try:
            require_known(self.config.potential, {*host.symbols, task.guest})
        except ValueError:
            return not_tried("unknown_element")
        by_charge = guest_limit(host.composition, common["charge"])
        if by_charge == 0 and not mask.any():
            return not_tried("no_electrons")
        fit = min(most_that_fit(host, atomic_numbers[task.guest]), len(host))
        most = max(fit if by_charge is None else min(fit, by_charge), int(mask.sum()))
        if most == 0:
            return not_tried("no_room")
        known = host.join(task.crystal.select(mask)) if mask.any() else None
        return self._in_supercell(task, host, known, most, common)

    def _in_supercell(
        self, task: ScreenTask, host: Crystal, known: Crystal | None, most: int, common: Mapping[str, Any]
    ) -> _Job:
        """The job in the smallest multiple of the cell in which all wanted contents are whole numbers of guests."""
        times = (1, 1, 1)
        for cells in range(2, math.ceil(self.config.contents / most) + 1):
            larger = supercell_for(host, Fraction(1, cells), self.config.max_atoms - most * cells)
            times = larger or times
        n = math.prod(times)
        large = _repeated(host, times)
        guests = None if known is None else _repeated(known.select(_after(known, host)), times)
        return _Job(
            task=task,
            host=large,
            known=None if guests is None else large.join(guests),
            most=most * n,
            units=len(large) / Composition(host.formula).num_atoms,
            common={**common, "most": most * n},
        )

    def _contents(self, job: _Job) -> list[int]:
        counts = set(spread_contents(job.most, self.config.contents))
        if job.known is not None:
            counts.add(len(job.known) - len(job.host))
        return sorted(counts)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _filled(
        self, job: _Job, start: Crystal, count: int, first: ElectrodeRow, stability: Stability | None
    ) -> ElectrodeRow:
        began, guest = time.process_time(), job.task.guest
        known = job.known if job.known is not None and len(job.known) - len(job.host) == count else None
        try:
            filled = self.filler.fill(start, guest, count, seed=job.task.seed + count, like=job.host, known=known)
        except ValueError as error:
            return self._failed(job, count, str(error), began)
        if not filled.fillings:
            return self._failed(job, count, ", ".join(sorted(filled.dropped)), began)
        best = filled.fillings[0]
        row = self._row(job, count, best.relaxation, (best.host_kept, best.host_moved), stability)
        row = replace(
            row,
            arrangements=len(filled.fillings),
            volume_change=row.volume / first.volume - 1 if row.volume and first.volume else None,
            conversion_voltage=self._conversion(first, row, stability),
            coordination=_coordination(best.crystal, best.guest),
            **_topotactic(filled, job.units),
        )
        return replace(row, seconds=time.process_time() - began)

    def _row(
        self,
        job: _Job,
        count: int,
        outcome: Relaxation,
        kept: tuple[bool, float],
        stability: Stability | None,
    ) -> ElectrodeRow:
        guest = job.task.guest
        base = {**job.common, "count": count, "x": count / job.units, "units": job.units}
        if not may_be_ranked(outcome):
            return ElectrodeRow(**base, status=Outcome.FAILED, reason=outcome.reason)
        crystal = outcome.final
        group = outcome.space_group if isinstance(outcome, Polished) else space_group(crystal)
        found = stability.decomposition(crystal.composition, outcome.energy_final) if stability else None
        return ElectrodeRow(
            **base,
            status=Outcome.FILLED if count else Outcome.EMPTY,
            reason="" if outcome.converged else outcome.reason,
            final=StoredCrystal.of(crystal),
            space_group=group.symbol if group else "P1",
            n_atoms=len(crystal),
            energy=outcome.energy_final,
            guest_energy=self._element(self.config.potential, guest),
            judge_energy=self._judged(crystal),
            judge_guest_energy=self._element(self.config.judge, guest) if self.config.judge else None,
            e_d=found.e_d if found else None,
            products=_products(found.products) if found else None,
            volume=crystal.volume / job.units,
            host_kept=kept[0],
            host_moved=kept[1],
        )

    def _failed(self, job: _Job, count: int, reason: str, began: float) -> ElectrodeRow:
        return ElectrodeRow(
            **job.common,
            count=count,
            x=count / job.units,
            units=job.units,
            status=Outcome.FAILED,
            reason=reason,
            seconds=time.process_time() - began,
        )

    def _given_up(self, job: _Job, count: int, reason: str) -> ElectrodeRow:
        return ElectrodeRow(
            **job.common, count=count, x=count / job.units, units=job.units, status=Outcome.GIVEN_UP, reason=reason
        )

    def _hopeless(self, first: ElectrodeRow) -> str | None:
        """Why a host is given up after it was relaxed empty; None if it is not."""
        rules = self.config.giving_up
        if first.status == Outcome.FAILED:
            return first.reason
        if first.e_d is not None and first.e_d > rules.max_e_d:
            return "e_d"
        return "collapsed" if rules.on_collapse and not first.host_kept else None

    def _voltage(self, first: ElectrodeRow, row: ElectrodeRow) -> float:
        """Average voltage from empty to the content of a row."""
        return _average(first, row, row.energy)

    def _conversion(self, first: ElectrodeRow, row: ElectrodeRow, stability: Stability | None) -> float | None:
        """Average voltage if the stable phases of the row's composition formed from the empty host."""
        if stability is None or row.e_d is None or row.energy is None:
            return None
        return _average(first, row, row.energy - row.e_d)

    def _with_paths(self, rows: Sequence[ElectrodeRow], job: _Job) -> list[ElectrodeRow]:
        """The full content also gets the paths of its guests."""
        place = electrode([row.record for row in rows]).full
        if place is None:
            return list(rows)
        full, began = rows[place], time.process_time()
        assert full.final is not None
        paths = _paths(full.final.crystal, job.task.guest, self.filler.relaxer.potential, self.config)
        seconds = (full.seconds or 0.0) + time.process_time() - began
        return [replace(row, **paths, seconds=seconds) if row is full else row for row in rows]

    # --- energies -----------------------------------------------------------------------------------------------------

    def _stability(self, job: _Job) -> Stability | None:
        """The hull of host and ion; None if there is no table, or it lacks an element."""
        elements = {*job.host.symbols, job.task.guest}
        if self._reference is None or not elements <= self._reference.elements:
            return None
        return Stability(self._reference, elements)

    def _judged(self, crystal: Crystal) -> float | None:
        """eV/atom of a crystal relaxed by the judge; None without one, or if it fails."""
        if self.judge is None:
            return None
        (outcome,) = relax([crystal], self.judge, RelaxSettings(fmax=self.config.filling.fmax))
        return outcome.energy_final if may_be_ranked(outcome) else None

    def _element(self, potential: str, symbol: str) -> float:
        """eV/atom of an element's stable phase: of the potential's table, else its known crystal relaxed."""
        if (potential, symbol) not in self._elements:
            self._elements[potential, symbol] = self._element_energy(potential, symbol)
        return self._elements[potential, symbol]

    def _element_energy(self, potential: str, symbol: str) -> float:
        if potential == self.config.potential and self._reference and symbol in self._reference.elements:
            return float(self._reference.of_system([symbol])["energy_per_atom"].min())
        own: Potential = self.filler.relaxer.potential if potential == self.config.potential else self.judge  # type: ignore[assignment]
        crystals = [phase.crystal for phase in packaged_library().find(symbol)[:3]]
        found = relax(crystals, own, RelaxSettings(fmax=self.config.filling.fmax))
        return min(one.energy_final for one in found if may_be_ranked(one))


def _average(first: ElectrodeRow, row: ElectrodeRow, energy: float | None) -> float:
    """Average voltage from the empty row to the content of another with this energy, eV/atom."""
    empty, atoms, units = first.energy, first.n_atoms, row.units
    assert empty is not None and energy is not None and atoms and units and row.n_atoms
    assert row.x and row.charge and row.guest_energy is not None
    return average_voltage(empty * atoms / units, energy * row.n_atoms / units, row.x, row.guest_energy, row.charge)


def _after(crystal: Crystal, host: Crystal) -> np.ndarray:
    return np.arange(len(crystal)) >= len(host)


def _repeated(crystal: Crystal, times: tuple[int, int, int]) -> Crystal:
    """A multiple of a cell, all images of an atom side by side."""
    return crystal if times == (1, 1, 1) else Crystal.from_pymatgen(crystal.to_pymatgen() * list(times))


def _topotactic(filled: Filled, units: float) -> dict[str, Any]:
    """Columns of the lowest arrangement that kept its host."""
    kept = filled.topotactic
    if kept is None:
        return {}
    is_lowest = kept is filled.fillings[0]
    return {
        "topotactic_energy": kept.relaxation.energy_final,
        "topotactic_volume": kept.crystal.volume / units,
        "topotactic_final": None if is_lowest else StoredCrystal.of(kept.crystal),
    }


def _products(products: Mapping[str, float]) -> str:
    return " + ".join(f"{share:.2f} {formula}" for formula, share in products.items())


def _coordination(crystal: Crystal, guest: np.ndarray) -> str:
    """Shells of the guests with their shares, the most frequent first."""
    shells = Counter(str(shell) for shell, own in zip(neighbour_shells(crystal), guest, strict=True) if own)
    return ", ".join(f"{shell} ({100 * n / guest.sum():.0f} %)" for shell, n in shells.most_common(3))


def _paths(crystal: Crystal, guest: str, potential: Potential, config: ScreenConfig) -> dict[str, Any]:
    """Columns of the paths of guests; empty where there are none."""
    wanted = potential if config.barriers else None
    try:
        found = percolation(crystal, guest, potential=wanted, settings=config.barriers, equal_sites=True)
    except ValueError:  # no space group, or no sites: no paths can be told
        return {}
    if not found.lengths:
        return {"percolates": 0}
    needed = [hop for hop in found.network.hops if not hop.blocked and hop.length <= found.lengths[1]]
    return {
        "percolates": max(found.lengths),
        "hop": found.lengths[1],
        "bottleneck": min(hop.bottleneck_radius for hop in needed),
        "direction": found.directions.get(1, ""),
        "barrier": found.highest.get(1),
    }
