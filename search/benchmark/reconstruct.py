"""The reconstruction task of the papers: remove all guests from a known crystal, place them again, compare.

ICML 2024, section 3.1: a reconstruction is a success if pymatgen's StructureMatcher (stol 0.3, ltol 0.2) maps it onto
the original; the RMSE is normalised by the number of guests because the host does not move.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element

from model.crystals.crystal import Crystal
from model.crystals.parquet import read_columns, read_crystals
from model.diffusion.sampler import Denoiser, Template
from model.potentials.interface import Potential
from model.relaxation.relax import RelaxSettings, relax
from search.benchmark.residuals import denoising_residuals, guests_relaxed

STOL, LTOL = 0.3, 0.2
ALL_ATOMS = RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=0.1, max_steps=200)  # for ΔE of the papers' Table 1

Method = Callable[["Case", Sequence[int]], tuple[list[Crystal], int]]  # (case, seeds) -> attempts, evaluations


@dataclass(frozen=True, eq=False)
class Case:
    """A known crystal and the element that is removed from it."""

    name: str
    crystal: Crystal
    guest: str

    @property
    def mask(self) -> np.ndarray:
        """(n,) bool, the guests."""
        return self.crystal.numbers == Element(self.guest).Z

    @property
    def host(self) -> Crystal:
        """The crystal without its guests."""
        return self.crystal.select(~self.mask)

    def templates(self, seeds: Sequence[int]) -> list[Template]:
        """One template per seed."""
        return [Template(crystal=self.crystal, guest=self.mask, seed=int(seed)) for seed in seeds]

    def seeds(self, count: int, seed: int) -> list[int]:
        """Seeds of its attempts, independent of other cases."""
        digest = hashlib.blake2b(f"{self.name}/{self.guest}".encode(), digest_size=7).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
        return rng.integers(2**62, size=count).tolist()


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One attempt at a case; what was not asked for is None, as is an RMSE without a match.

    Attributes:
        matched, rmse: whether it matches the original before relaxation, and the RMSE (Å per guest).
        relaxed_matched, relaxed_rmse: the same after the guests have relaxed in the fixed host.
        single_point, relaxed: energy (eV/atom) before and after that relaxation.
        steps: of that relaxation; ``converged``: whether it converged.
        residual: of the score model, see `search.benchmark.residuals.denoising_residuals`.
    """

    matched: bool
    rmse: float | None
    relaxed_matched: bool | None = None
    relaxed_rmse: float | None = None
    single_point: float | None = None
    relaxed: float | None = None
    steps: int | None = None
    converged: bool | None = None
    residual: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Results of all attempts at one case by one method; one line of the benchmark's file.

    Attributes:
        method, case, guest: identify the record.
        atoms, guest_fraction: of the original.
        new_host: whether no training crystal has this host; None if this was not checked.
        attempts: one per seed, or fewer if the method found fewer.
        samples: number of attempts requested.
        original: energy (eV/atom) of the original after relaxing its guests in the same way.
        max_force: eV/Å, largest force on any atom of the first attempt (the papers' F_max).
        energy_drop: eV/atom, energy released when all atoms of the first attempt relax in its cell (the papers' ΔE).
        evaluations: of the network, per attempt.
        seconds: wall time per attempt, without ranking.
    """

    method: str
    case: str
    guest: str
    atoms: int
    guest_fraction: float
    new_host: bool | None
    attempts: tuple[Placement, ...]
    samples: int
    original: float | None
    max_force: float | None
    energy_drop: float | None
    evaluations: int
    seconds: float


def load_cases(path: Path, *, split: str, guest: str | None = None, limit: int | None = None) -> list[Case]:
    """Read cases from a file with the columns of the training data, at most ``limit`` per guest element.

    Crystals that consist of the guest element alone have no host and are left out.

    Raises:
        ValueError: the file does not exist or contains no such case.
    """
    columns = ["material_id", "split", "guest", "cell", "atomic_numbers", "frac_coords"]
    frame = read_columns(path, columns, see="docs/training.md")
    chosen = frame[(frame["split"] == split) & (frame["guest"].fillna("") != "")]
    chosen = chosen[[len(np.unique(numbers)) > 1 for numbers in chosen["atomic_numbers"]]]
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
    case: Case,
    name: str,
    method: Method,
    *,
    samples: int,
    seed: int = 0,
    denoiser: Denoiser | None = None,
    potential: Potential | None = None,
    stability: bool = False,
    new_host: bool | None = None,
) -> Record:
    """Try one case ``samples`` times.

    Args:
        case: what to restore.
        name: of the method, for the record.
        method: places the guests.
        samples, seed: number of attempts and seed of their random numbers.
        denoiser: if given, its residual of each attempt is computed.
        potential: if given, it ranks the attempts before and after relaxing their guests.
        stability: relax all atoms of the first attempt as well.
        new_host: for the record.
    """
    began = time.perf_counter()
    made, evaluations = method(case, case.seeds(samples, seed))
    seconds = (time.perf_counter() - began) / samples
    errors = [match(crystal, case) for crystal in made]
    columns = {
        "matched": [error is not None for error in errors],
        "rmse": errors,
        **(_residuals(denoiser, made, case) if denoiser and made else {}),
        **(_relaxed(potential, made, case) if potential and made else {}),
    }
    attempts = tuple(Placement(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
    force, drop = _stability(potential, made[0]) if potential and stability and made else (None, None)
    return Record(
        method=name,
        case=case.name,
        guest=case.guest,
        atoms=len(case.crystal),
        guest_fraction=float(case.mask.mean()),
        new_host=new_host,
        attempts=attempts,
        samples=samples,
        original=_original(potential, case) if potential else None,
        max_force=force,
        energy_drop=drop,
        evaluations=evaluations,
        seconds=seconds,
    )


def match(made: Crystal, case: Case) -> float | None:
    """RMSE in Å per guest if the crystal matches the original, else None.

    The papers' matcher decides. The RMSE is computed without reduction to primitive cells, because that reduction
    averages over atoms that are up to 0.25 Å out of place.
    """
    original, structure = case.crystal.to_pymatgen(), made.to_pymatgen()
    if not StructureMatcher(stol=STOL, ltol=LTOL).fit(original, structure):
        return None
    found = StructureMatcher(stol=STOL, ltol=LTOL, primitive_cell=False).get_rms_dist(original, structure)
    if found is None:
        return None
    size, n = case.crystal.volume / len(made), len(made)
    return float(found[0] * np.cbrt(size) * np.sqrt(n / case.mask.sum()))


def _residuals(denoiser: Denoiser, made: Sequence[Crystal], case: Case) -> dict[str, list[float]]:
    guests = [crystal.numbers == Element(case.guest).Z for crystal in made]
    templates = [Template(crystal=crystal, guest=guest, seed=0) for crystal, guest in zip(made, guests, strict=True)]
    return {"residual": [float(value) for value in denoising_residuals(denoiser, templates)]}


def _relaxed(potential: Potential, made: Sequence[Crystal], case: Case) -> dict[str, list[float | int | bool | None]]:
    """Energies before and after relaxing only the guests in the fixed host, and whether the result matches."""
    guests = [crystal.numbers == Element(case.guest).Z for crystal in made]
    outcomes = guests_relaxed(made, guests, potential)
    errors = [match(one.final, case) for one in outcomes]
    return {
        "relaxed_matched": [error is not None for error in errors],
        "relaxed_rmse": list(errors),
        "single_point": [_finite(one.energy_initial) for one in outcomes],
        "relaxed": [_finite(one.energy_final) for one in outcomes],
        "steps": [one.steps for one in outcomes],
        "converged": [one.converged for one in outcomes],
    }


def _original(potential: Potential, case: Case) -> float | None:
    return _finite(guests_relaxed([case.crystal], [case.mask], potential)[0].energy_final)


def _stability(potential: Potential, crystal: Crystal) -> tuple[float | None, float | None]:
    """Largest force (eV/Å) before relaxation, and the energy (eV/atom) released by relaxing all atoms in the cell."""
    outcome = relax([crystal], potential, ALL_ATOMS)[0]
    return _finite(outcome.max_force_initial), _finite(outcome.energy_initial - outcome.energy_final)


def _finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not support."""
    return float(value) if np.isfinite(value) else None
