"""The papers' task: take all guests out of known crystals, put them back from nowhere, count how often it succeeds.

ICML 2024, section 3.1: a reconstruction counts when pymatgen's StructureMatcher (stol 0.3, ltol 0.2) maps it onto the
original; the RMSE is normalised by the number of guests because the host stays where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element

from model.crystal import Crystal
from model.dataset import read_crystals
from model.parquet import read_columns
from model.potential import Potential
from model.relax import RelaxSettings, relax
from model.sampler import Blank, SamplerSettings
from model.stages import Generator

STOL, LTOL = 0.3, 0.2


@dataclass(frozen=True, eq=False)
class Case:
    """A known crystal and the element that is taken out of it."""

    name: str
    crystal: Crystal
    guest: str

    @property
    def mask(self) -> np.ndarray:
        """(n,) bool, the guests."""
        return self.crystal.numbers == Element(self.guest).Z


@dataclass(frozen=True)
class Attempts:
    """What became of k samples of one case.

    Attributes:
        matched: per sample, whether it matches the original.
        rmse: per sample, Å per guest; NaN without a match.
        energies: per sample, eV/atom by the potential that ranks; empty without one.
        evaluations: of the network, per sample.
        seconds: wall time a sample.
    """

    case: Case
    matched: tuple[bool, ...]
    rmse: tuple[float, ...]
    energies: tuple[float, ...]
    evaluations: int
    seconds: float

    @property
    def ranked(self) -> bool:
        """Whether the sample of lowest energy matches."""
        return self.matched[int(np.argmin(self.energies))]


def load_cases(path: Path, *, split: str, guest: str | None = None, limit: int | None = None) -> list[Case]:
    """Read cases from a file with the columns of the training data, ``limit`` a guest element.

    Raises:
        ValueError: the file or a case of that kind does not exist.
    """
    columns = ["material_id", "split", "guest", "cell", "atomic_numbers", "frac_coords"]
    frame = read_columns(path, columns, see="docs/training.md")
    chosen = frame[(frame["split"] == split) & (frame["guest"].fillna("") != "")]
    if guest is not None:
        chosen = chosen[chosen["guest"] == guest]
    if chosen.empty:
        raise ValueError(f"{path} has no case of split {split!r}" + (f" with guest {guest}" if guest else ""))
    if limit is not None:
        chosen = chosen.groupby("guest", sort=True).sample(frac=1.0, random_state=0).groupby("guest").head(limit)
    crystals = read_crystals(chosen)
    return [
        Case(str(name), crystal, str(element))
        for name, crystal, element in zip(chosen["material_id"], crystals, chosen["guest"], strict=True)
    ]


def reconstruct(
    cases: Sequence[Case],
    generator: Generator,
    settings: SamplerSettings,
    *,
    samples: int,
    seed: int = 0,
    potential: Potential | None = None,
    report: Callable[[Attempts], None] = lambda attempts: None,
) -> list[Attempts]:
    """Try every case ``samples`` times; with a potential, also rank the samples after relaxing the guests."""
    attempts = []
    for index, case in enumerate(cases):
        seeds = np.random.default_rng([seed, index]).integers(2**62, size=samples)
        began = time.perf_counter()
        made = generator.generate([Blank(case.crystal, case.mask, int(one)) for one in seeds], settings)
        seconds = (time.perf_counter() - began) / samples
        errors = [match(crystal, case) for crystal in made.crystals]
        energies = _energies(made.crystals, case, potential) if potential else []
        attempts.append(
            Attempts(
                case,
                tuple(error is not None for error in errors),
                tuple(np.nan if error is None else error for error in errors),
                tuple(energies),
                made.evaluations,
                seconds,
            )
        )
        report(attempts[-1])
    return attempts


def match(made: Crystal, case: Case) -> float | None:
    """RMSE in Å per guest if the crystal matches the original, else None.

    The papers' matcher decides. The error is measured in the cell as it is, because the matcher's reduction to
    primitive cells averages over atoms that are up to 0.25 Å out of place.
    """
    original, structure = case.crystal.to_pymatgen(), made.to_pymatgen()
    if not StructureMatcher(stol=STOL, ltol=LTOL).fit(original, structure):
        return None
    found = StructureMatcher(stol=STOL, ltol=LTOL, primitive_cell=False).get_rms_dist(original, structure)
    if found is None:
        return None
    size, n = case.crystal.volume / len(made), len(made)
    return float(found[0] * np.cbrt(size) * np.sqrt(n / case.mask.sum()))


def _energies(crystals: Sequence[Crystal], case: Case, potential: Potential) -> list[float]:
    """Energies after the guests alone have relaxed in the fixed host; failures come last."""
    settings = RelaxSettings(cell="fixed", fmax=0.1, max_steps=50)
    outcomes = relax(crystals, potential, settings, free=[case.mask] * len(crystals))
    return [one.energy_final if np.isfinite(one.energy_final) else np.inf for one in outcomes]


def summarise(attempts: Iterable[Attempts]) -> dict[str, Any]:
    """Shares by guest element and, in ``summary``, their means over the elements."""
    groups: dict[str, list[Attempts]] = {}
    for one in attempts:
        groups.setdefault(one.case.guest, []).append(one)
    guests = {guest: _of_guest(some) for guest, some in sorted(groups.items())}
    keys = ("raw_match", "ranked_match", "oracle_match", "rmse_median", "evaluations", "seconds_per_sample")
    values = {key: [one[key] for one in guests.values() if one[key] is not None] for key in keys}
    return {
        "summary": {key: float(np.mean(found)) if found else None for key, found in values.items()},
        "guests": guests,
    }


def _of_guest(attempts: Sequence[Attempts]) -> dict[str, Any]:
    matched = np.array([one.matched for one in attempts])
    rmse = np.concatenate([one.rmse for one in attempts])
    return {
        "cases": len(attempts),
        "raw_match": float(matched.mean()),
        "raw_match_std": float(matched.mean(axis=0).std()),
        "ranked_match": float(np.mean([one.ranked for one in attempts])) if attempts[0].energies else None,
        "oracle_match": float(matched.any(axis=1).mean()),
        "rmse_median": float(np.nanmedian(rmse)) if matched.any() else None,
        "evaluations": float(np.mean([one.evaluations for one in attempts])),
        "seconds_per_sample": float(np.mean([one.seconds for one in attempts])),
    }
