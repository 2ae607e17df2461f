"""The benchmark of crystal structure prediction: from the atoms of a cell to the crystal, and how often it is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals
from model.relaxation.relax import Relaxation, may_be_ranked
from search.benchmark.csp_targets import Target
from search.benchmark.timed_search import TimedSearch, stages
from search.config import SearchConfig
from search.config_file import check_config
from search.planning.campaign import digest
from search.planning.prepare import load_reference
from search.storage.results import write_json
from search.storage.rows import Row, Status

AS_LOW = 0.002  # eV/atom above the known crystal, relaxed the same way, up to which an energy counts as as low
AT_ONCE = 96  # atoms in a batch; relaxing more at once is no faster on one core
RECORD = "record.json"


@dataclass(frozen=True, kw_only=True)
class CspSettings:
    """What all targets of a benchmark have in common.

    Attributes:
        seconds: CPU seconds of a target; infinite for no limit.
        relaxations: of a target; infinite for no limit.
        until_found: whether a search ends as soon as the known crystal is found; its rank is then unknown.
        blind: whether the phases of the target's chemical system, and of other formulas, are hidden from the search.
        generators: that compete; none for all.
        weights: of the score model.
        seed: of the search.
    """

    seconds: float = np.inf
    relaxations: float = np.inf
    until_found: bool = False
    blind: bool = True
    generators: tuple[str, ...] = ()
    weights: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class CspRecord:
    """What came of one target; what depends on a known crystal is None without one.

    Attributes:
        name: of the target; its ``formula`` and ``atoms`` likewise.
        known: whether the known crystal is at hand.
        space_group: number of the known crystal's.
        digest: of the search.
        seconds: CPU seconds spent.
        candidates, relaxed: how many were made and relaxed.
        rank: place of the known crystal among the distinct crystals found, by energy, from 1; None if not found.
        found_seconds, found_after: CPU seconds and relaxed crystals until it was found.
        generator, prototype: what made it, and of which phase.
        groups: space groups of the five lowest distinct crystals.
        energy: eV/atom of the lowest.
        known_energy: eV/atom of the known crystal, relaxed the same way.
    """

    name: str
    formula: str
    atoms: int
    known: bool
    space_group: int | None
    digest: str
    seconds: float
    candidates: int
    relaxed: int
    rank: int | None
    found_seconds: float | None
    found_after: int | None
    generator: str | None
    prototype: str | None
    groups: tuple[int, ...]
    energy: float | None
    known_energy: float | None

    @property
    def as_low(self) -> bool:
        """Whether an energy as low as that of the known crystal was found."""
        if self.energy is None or self.known_energy is None:
            return False
        return self.energy <= self.known_energy + AS_LOW


def run_csp(
    targets: Sequence[Target],
    settings: CspSettings,
    *,
    hidden: Sequence[str] = (),
    out: Path,
    share: tuple[int, int] = (1, 1),
    report: Callable[[CspRecord], None] = lambda record: None,
) -> dict[str, Any]:
    """Search every target, each in its own folder beside ``out``; what is done there is not repeated.

    Args:
        targets: to be found.
        settings: common to all.
        hidden: formulas that a blind search must not know, besides the target's chemical system.
        out: JSON file of the results.
        share: (k, n), the k-th of n parts; all parts may have the same ``out``, which then has what is done so far.
        report: called with the record of each target.

    Returns:
        what the file has: ``summary``, ``settings`` and ``records``.

    Raises:
        ValueError: the folder holds a benchmark with other settings.
    """
    part, parts = share
    for target in targets[part - 1 :: parts]:
        report(predict(target, settings, hidden, out.with_suffix("") / target.name))
    done = [_stored(out.with_suffix("") / target.name) for target in targets]
    records = [record for record in done if record is not None]
    summary = summarise(records)
    if settings.until_found:  # what would have been lower, had the searches gone on, nobody knows
        summary |= dict.fromkeys(("top1", "top5", "space_group_top1", "space_group_top5"))
    result = {
        "summary": summary,
        "settings": {name: _finite(value) for name, value in asdict(settings).items()},
        "records": [asdict(record) for record in records],
    }
    write_json(out, result)
    return result


def _finite(value: Any) -> Any:
    return None if value == np.inf else value


def predict(target: Target, settings: CspSettings, hidden: Sequence[str], folder: Path) -> CspRecord:
    """Search one target."""
    config = configuration(target, settings, hidden)
    before = _stored(folder)
    if before is not None:
        if before.digest != digest(config):
            raise ValueError(
                f"{folder} holds a search with other settings; choose another --json, or remove the folder"
            )
        found = settings.until_found and before.rank is not None
        if found or before.seconds >= settings.seconds or before.relaxed >= settings.relaxations:
            return before
    search = TimedSearch(config, folder)
    known = _relaxed_known(target, config) if target.crystal else None
    matches = _Matcher(target, known)
    if settings.until_found:
        search.search(settings.seconds, relaxations=settings.relaxations, wanted=matches)
    else:
        search.search(settings.seconds, relaxations=settings.relaxations)
    record = judge(target, known, matches, search, settings)
    write_json(folder / RECORD, asdict(record))
    return record


def configuration(target: Target, settings: CspSettings, hidden: Sequence[str]) -> SearchConfig:
    """The search of a target: its cell alone."""
    batch = int(np.clip(AT_ONCE // target.cell.n_atoms, 4, 8))
    system = "-".join(sorted(target.cell.elements))
    content: dict[str, Any] = {
        "name": target.name,
        "seed": settings.seed,
        "compositions": {"cells": [target.cell.as_dict]},
        "library": {"without_systems": [system], "without_formulas": list(hidden)} if settings.blind else {},
        "relaxation": {"keep_symmetry": True, "max_steps": 300},
        "polish": None,
        "models": {"weights": settings.weights},
        "policy": {"rounds": 10**6, "candidates_per_round": 2 * batch, "rounds_ahead": 0, "batch": batch},
    }
    if settings.generators:
        content["generators"] = settings.generators
    return check_config(content, source=target.name)


def _relaxed_known(target: Target, config: SearchConfig) -> Relaxation | None:
    """The known crystal, relaxed like the candidates, but without giving up."""
    assert target.crystal is not None
    relaxer = stages(config, load_reference(config)).relaxer
    (outcome,) = relaxer.relax([target.crystal], settings=config.relaxation)
    return outcome if isinstance(outcome, Relaxation) and may_be_ranked(outcome) else None


def judge(
    target: Target, known: Relaxation | None, matches: _Matcher, search: TimedSearch, settings: CspSettings
) -> CspRecord:
    """What a search found of its target within its limits."""
    rows = _counted(search, settings)
    relaxed = [(at, n, row) for at, n, row in rows if row.status == Status.RELAXED]
    ranked = _distinct([row for _, _, row in relaxed])
    hit = next(((at, n, row) for at, n, row in relaxed if matches(row)), None)
    rank = None if hit is None else next((i for i, row in enumerate(ranked, 1) if matches(row)), len(ranked))
    return CspRecord(
        name=target.name,
        formula=target.cell.reduced,
        atoms=target.cell.n_atoms,
        known=target.crystal is not None,
        space_group=target.space_group,
        digest=digest(search.config),
        seconds=search.ends[-1] if search.ends else 0.0,
        candidates=len(rows),
        relaxed=sum(row.steps is not None for _, _, row in rows),
        rank=rank,
        found_seconds=hit[0] if hit else None,
        found_after=hit[1] if hit else None,
        generator=hit[2].generator if hit else None,
        prototype=hit[2].prototype if hit else None,
        groups=tuple(row.space_group_number or 1 for row in ranked[:5]),
        energy=ranked[0].energy if ranked else None,
        known_energy=known.energy_final if known else None,
    )


def _counted(search: TimedSearch, settings: CspSettings) -> list[tuple[float, int, Row]]:
    """CPU seconds, relaxed crystals so far and row of every candidate within the limits."""
    counted, relaxed = [], 0
    for at, row in search.within(settings.seconds):
        relaxed += row.steps is not None
        if relaxed <= settings.relaxations:
            counted.append((at, relaxed, row))
    return counted


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """The distinct crystals, the lowest first."""
    distinct = DistinctCrystals(RELAXED)
    ordered = sorted(rows, key=_energy)
    return [row for row in ordered if distinct.add(_final(row), energy=row.energy) is None]


def _energy(row: Row) -> float:
    assert row.energy is not None
    return row.energy


def _final(row: Row) -> Crystal:
    assert row.final is not None
    return row.final.crystal


class _Matcher:
    """Whether a crystal is the known one, as it is in the database or relaxed."""

    def __init__(self, target: Target, known: Relaxation | None) -> None:
        self._matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
        crystals: list[Crystal] = [one for one in (target.crystal, known.final if known else None) if one is not None]
        self._known = [one.to_pymatgen() for one in crystals]
        self._verdicts: dict[str, bool] = {}

    def __call__(self, row: Row) -> bool:
        if row.candidate not in self._verdicts:
            found = _final(row).to_pymatgen()
            self._verdicts[row.candidate] = any(self._matcher.fit(one, found) for one in self._known)
        return self._verdicts[row.candidate]


def summarise(records: Sequence[CspRecord]) -> dict[str, Any]:
    """Shares of the targets: found at all, as the lowest, among the five lowest; with energies as low."""
    known = [record for record in records if record.known]
    grouped = [record for record in records if record.space_group is not None]
    within = {k: [record.rank is not None and record.rank <= k for record in known] for k in (1, 5, 10**9)}
    times = [record.found_seconds for record in known if record.found_seconds is not None]
    return {
        "targets": len(known),
        "found_any": _mean(within[10**9]),
        "top1": _mean(within[1]),
        "top5": _mean(within[5]),
        "as_low": _mean([record.as_low for record in known]),
        "space_group_top1": _mean([record.space_group in record.groups[:1] for record in grouped]),
        "space_group_top5": _mean([record.space_group in record.groups for record in grouped]),
        "median_seconds_to_find": float(np.median(times)) if times else None,
        "generators": {
            name: sum(record.generator == name for record in known)
            for name in sorted({record.generator for record in known if record.generator})
        },
    }


def _mean(flags: Sequence[bool]) -> float | None:
    return float(np.mean(flags)) if flags else None


def _stored(folder: Path) -> CspRecord | None:
    file = folder / RECORD
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    return CspRecord(**{**content, "groups": tuple(content["groups"])})
