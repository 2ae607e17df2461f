"""Running the reconstruction benchmark: all cases with all methods, stored as they finish, and their statistics."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model.crystals.parquet import read_columns
from model.potentials.catalog import DEFAULT, load_potential
from model.stages import CrystalMaker
from search.benchmark.log import RecordLog
from search.benchmark.methods import make_method
from search.benchmark.reconstruct import Case, load_cases, reconstruct
from search.benchmark.summary import summarise
from search.benchmark.training_hosts import TrainingCrystals


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What all cases of a benchmark have in common; stored with the results.

    Attributes:
        split: of the crystals.
        samples, seed: attempts per case, and seed of their random numbers.
        rank: whether to rank attempts by energy, before and after relaxing the guests.
        residual: whether to rank them by the score model's residual.
        stability: whether to relax all atoms of each first attempt.
    """

    split: str = "test"
    samples: int = 4
    seed: int = 0
    rank: bool = True
    residual: bool = False
    stability: bool = False


def run_benchmark(
    data: Path,
    methods: Sequence[str],
    settings: BenchmarkSettings,
    *,
    guest: str | None = None,
    limit: int | None = None,
    train: Path | None = None,
    weights: str | None = None,
    share: tuple[int, int] = (1, 1),
    out: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Reconstruct all cases of a file with all methods; cases that are stored already are not repeated.

    Args:
        data: a file with the columns of the training data.
        methods: names, see `search.benchmark.methods.make_method`; the first one's statistics come first.
        settings: common to all cases.
        guest, limit: only this guest element, and at most so many crystals per guest element.
        train: file of the training crystals with which hosts are compared. By default the data; if they have no split
            ``train``, hosts are not compared.
        weights: of the score model.
        share: (k, n), process the k-th of n parts; all parts may have the same ``out``.
        out: JSON file for the result. Cases are stored in the ``.jsonl`` beside it as soon as they are done.
        report: called after each case with the number of cases done and to do in this call.

    Returns:
        the statistics of the first method, see `search.benchmark.summary.summarise`; those of every method with a
        finished case (``methods``); the settings; the number of ``cases``; and whether hosts were compared.

    Raises:
        ValueError: a bad file or method, or ``out`` contains a benchmark with other settings.
    """
    cases = load_cases(data, split=settings.split, guest=guest, limit=limit)
    maker = CrystalMaker(weights)
    known = _training_crystals(data, train, cases)
    placing = {name: make_method(name, maker, known) for name in methods}
    digest = hashlib.sha256(data.read_bytes()).hexdigest()[:16]
    header = {"data": digest, **asdict(settings), "score_model": maker.version}
    log = RecordLog(out and out.with_suffix(".jsonl"), header)
    potential = load_potential(DEFAULT) if settings.rank or settings.stability else None
    part, parts = share
    todo = [
        (name, case)
        for case in cases[part - 1 :: parts]
        for name in placing
        if (name, case.name, case.guest) not in log.records
    ]
    for done, (name, case) in enumerate(todo, start=1):
        record = reconstruct(
            case,
            name,
            placing[name],
            samples=settings.samples,
            seed=settings.seed,
            potential=potential,
            stability=settings.stability,
            denoiser=maker.network if settings.residual else None,
            new_host=known.is_new(case.host) if known else None,
        )
        log.add(record)
        report(done, len(todo))
    found = {name: summarise(records) for name in placing if (records := log.chosen(name, cases))}
    result = {
        **found.get(methods[0], summarise([])),
        "methods": found,
        **header,
        "cases": len(cases),
        "hosts_compared": known is not None,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} CPU threads, torch {version('torch')}",
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _training_crystals(data: Path, train: Path | None, cases: Sequence[Case]) -> TrainingCrystals | None:
    if train is None and "train" not in set(read_columns(data, ["split"], see="docs/training.md")["split"]):
        return None
    return TrainingCrystals(train or data, [(case.host, int(case.mask.sum())) for case in cases])
