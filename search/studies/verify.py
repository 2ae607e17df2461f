"""Verifying crystals of runs and files: what is known of each, and one verdict.

`verification.json` in a run holds one object for each verified crystal. `hostguide verify --json` prints the same
without the curves.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.crystals.crystal import Crystal
from model.potentials.catalog import PotentialChoice, find_entry, load_potential
from model.relaxation.relax import RelaxSettings, may_be_ranked, relax
from model.symmetry.space_group import REPORTED, space_group
from model.verification.pattern_match import PatternRanking
from model.verification.settings import VerifySettings
from model.verification.verdict import Energy, Lattice, verdict
from model.verification.verifier import Verification, Verifier
from search.storage.cif import cif_text
from search.storage.crystal_files import NamedCrystal
from search.storage.judgements import VERIFICATION
from search.storage.paths import RunPath, write_whole
from search.storage.ranking import rank
from search.storage.results import load_results
from search.storage.rows import unpack_or_raise
from search.studies.crystal_stability import CrystalStability

SECONDS = 1800.0  # longest that one crystal may take on an actor
MANY = 4  # crystals with phonons, from which on actors share them
FILE_RELAX = RelaxSettings(fmax=0.02, keep_symmetry=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A crystal to verify.

    Attributes:
        name: of the candidate, or of the crystal in its file.
        crystal: relaxed.
        energy: its distance from the hull.
    """

    name: str
    crystal: Crystal
    energy: Energy


def run_subjects(run: RunPath, potential: PotentialChoice, *, top: int) -> list[Subject]:
    """The best distinct crystals of a run.

    Args:
        run: its folder.
        potential: of its energies.
        top: number of crystals.

    Raises:
        ValueError: it has no relaxed candidate.
    """
    best = rank(load_results(run, structures=False), top=top)
    if best.empty:
        raise ValueError(f"{run} has no relaxed candidate yet")
    return [
        Subject(
            name=row["candidate"],
            crystal=unpack_or_raise(row["final"]),
            energy=_energy_of_run(row, potential),
        )
        for row in best.to_dict("records")
    ]


def file_subjects(
    crystals: Sequence[NamedCrystal], potential: PotentialChoice, say: Callable[[str, str], None]
) -> list[Subject]:
    """Crystals of files, relaxed in their space groups; ``say`` is told the name and why one is left out."""
    stability, found = CrystalStability(potential), []
    results = relax([one.crystal for one in crystals], load_potential(potential), FILE_RELAX)
    for one, relaxed in zip(crystals, results, strict=True):
        if not may_be_ranked(relaxed):
            say(one.name, f"left out, it cannot be relaxed: {relaxed.detail or relaxed.reason}")
            continue
        columns = stability.columns(relaxed.final, relaxed.energy_final)
        energy = _energy(columns["e_d"], potential)
        found.append(Subject(name=one.name, crystal=relaxed.final, energy=energy))
    return found


def _energy_of_run(row: Mapping[Any, Any], potential: PotentialChoice) -> Energy:
    """The distance from the hull with the spread of all potentials that judged the crystal, if there are others."""
    low, high = row["e_d_low"], row["e_d_high"]
    if high > low:
        return Energy(e_d=row["e_d"], error=high - low, source="spread of several potentials")
    return _energy(row["e_d"], potential)


def _energy(e_d: float, potential: PotentialChoice) -> Energy:
    """The distance from the hull with the error that the potential is known to have."""
    entry = find_entry(potential)
    return Energy(e_d=None if math.isnan(e_d) else float(e_d), error=entry.error, source=entry.name)


def verified(
    subjects: Sequence[Subject],
    potential: PotentialChoice,
    settings: VerifySettings,
    *,
    workers: int | None = None,
    address: str = "local",
    report: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """One record for each crystal, in order; see `record` and `failed_record`.

    Args:
        subjects: the crystals.
        potential: a name of the catalogue, or a calculator.
        settings: what is found out.
        workers: actors that share the work; with one, it is done in this process. None: one per core for the phonons
            of many crystals, else this process.
        address: of Ray.
        report: called after each crystal.
    """
    if workers is None:
        many = settings.phonons is not None and len(subjects) >= MANY
        workers = min(os.cpu_count() or 1, len(subjects)) if many else 1
    records: dict[int, dict[str, Any]] = {}
    for place, found in _found([one.crystal for one in subjects], potential, settings, workers, address):
        subject = subjects[place]
        records[place] = failed_record(subject, found) if isinstance(found, str) else record(subject, found)
        report()
    return [records[place] for place in range(len(subjects))]


def _found(
    crystals: Sequence[Crystal], potential: PotentialChoice, settings: VerifySettings, workers: int, address: str
) -> Iterator[tuple[int, Verification | str]]:
    """Place and result of each crystal as soon as it is done, or what went wrong."""
    if workers == 1:
        verifier = Verifier(potential, settings)
        yield from ((place, verifier.verify(crystal)) for place, crystal in enumerate(crystals))
        return
    from actors.each import call_each  # Ray, which a single process does not need
    from actors.pool import Failed
    from actors.workers import VerifierActor

    arguments = {"potential": potential, "settings": settings}
    for outcome in call_each(
        VerifierActor, "verify", crystals, arguments=arguments, workers=workers, seconds=SECONDS, address=address
    ):
        yield outcome.job, f"{outcome.cause}: {outcome.message}" if isinstance(outcome, Failed) else outcome.value


def record(subject: Subject, found: Verification) -> dict[str, Any]:
    """What is stored of a crystal, with the curves of its pictures."""
    vibrations, elastic, kind = found.vibrations, found.elastic, found.type
    judged = verdict(known=found.known, balance=found.balance, energy=subject.energy, lattice=_lattice(found))
    group = space_group(subject.crystal, REPORTED, -1.0)
    return {
        "name": subject.name,
        "formula": subject.crystal.formula,
        "atoms": len(subject.crystal),
        "space_group": "P1" if group is None else group.symbol,
        "known": found.known,
        "nearest_type": None if kind is None else kind.material_id,
        "ion_exchange": kind is not None and kind.exchange,
        "type_text": "no known crystal has its stoichiometry and space group" if kind is None else kind.text,
        "charge_balance": str(found.balance.kind),
        "oxidation_states": {symbol: round(state, 3) for symbol, state in found.balance.states.items()},
        "charge_text": found.balance.text,
        "lowest_frequency": None if vibrations is None else round(vibrations.lowest.frequency, 3),
        "lowest_at": None if vibrations is None else vibrations.lowest.wave_vector.round(4).tolist(),
        "imaginary": [] if vibrations is None else [round(mode.frequency, 3) for mode in vibrations.imaginary],
        "supercell_atoms": None if vibrations is None else vibrations.atoms,
        "distorts_to": [
            {
                "space_group": "P1" if one.space_group is None else one.space_group.symbol,
                "atoms": len(one.crystal),
                "fall": round(one.fall, 6),
            }
            for one in found.followed
        ],
        "bulk_modulus": None if elastic is None else round(elastic.bulk_modulus, 2),
        "elastically_stable": None if elastic is None else elastic.stable,
        "e_d": subject.energy.e_d,
        "error": subject.energy.error,
        "error_source": subject.energy.source,
        "similarity": None,
        "problem": found.problem,
        "grade": str(judged.grade),
        "verdict": judged.text,
        "bands": None if vibrations is None else _curves(vibrations.bands),
        "dos": None if vibrations is None else [vibrations.dos_frequencies.round(3).tolist(), _few(vibrations.dos)],
        "cifs": [cif_text(one.crystal) for one in found.followed],
    }


def _lattice(found: Verification) -> Lattice | None:
    vibrations = found.vibrations
    if vibrations is None or found.elastic is None:
        return None
    lowest = found.followed[0] if found.followed else None
    return Lattice(
        lowest=vibrations.lowest.frequency,
        imaginary=bool(vibrations.imaginary),
        interpolated=vibrations.interpolated,
        fall=None if lowest is None else 1e3 * lowest.fall,
        leads_to="" if lowest is None else str(lowest.space_group or "P1"),
        elastic=found.elastic.stable,
    )


def _curves(bands: Any) -> dict[str, Any]:
    return {
        "places": _few(bands.places),
        "frequencies": [_few(row) for row in bands.frequencies.T],
        "ticks": _few(np.array(bands.ticks)),
        "labels": list(bands.labels),
    }


def _few(numbers: np.ndarray) -> list[float]:
    rounded: list[float] = numbers.round(3).tolist()
    return rounded


def failed_record(subject: Subject, problem: str) -> dict[str, Any]:
    """The object of a crystal that could not be verified."""
    return {
        "name": subject.name,
        "formula": subject.crystal.formula,
        "atoms": len(subject.crystal),
        "problem": problem,
        "grade": "failed",
        "verdict": f"not verified: {problem}",
    }


def add_similarity(records: Sequence[dict[str, Any]], ranking: PatternRanking) -> None:
    """Note in each record how well its crystal explains a measured pattern."""
    for match in ranking.single:
        (place,) = match.crystals
        records[place]["similarity"] = round(match.similarity, 4)


def write_records(place: RunPath, records: Sequence[Mapping[str, Any]]) -> None:
    """Write `verification.json` into a run or a folder, as a whole."""
    write_whole(place / VERIFICATION, json.dumps(list(records), allow_nan=False).encode())
