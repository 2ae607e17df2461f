"""A search in one process whose CPU seconds are counted, stored in a folder and resumed."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from model.stages import Analyser
from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.prepare import hull_energies, load_reference
from search.running.pipeline import Stages, load_stages, search_here
from search.storage.results import ResultStore, write_json
from search.storage.rows import Row, Status


class TimedSearch:
    """A search, task by task; what is stored is not repeated.

    Args:
        config: of the search.
        folder: where it is stored.

    Attributes:
        rows: of the finished tasks.
        ends: CPU seconds when each row's task was done, all that the search does included.
    """

    def __init__(self, config: SearchConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.store = ResultStore(folder)
        self.clock = folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.clock.read_text()) if self.clock.exists() else {}
        self.rows: list[Row] = []
        self.ends: list[float] = []
        self._stored = self.store.tasks()
        self._tasks: Iterator[list[Row]] | None = None

    @property
    def relaxed(self) -> int:
        """Crystals that were relaxed so far, converged or not."""
        return sum(row.steps is not None for row in self.rows)

    def search(
        self,
        seconds: float = np.inf,
        *,
        relaxations: float = np.inf,
        wanted: Callable[[Row], bool] = lambda row: False,
    ) -> None:
        """Start or continue until one of the limits is reached.

        Args:
            seconds: CPU seconds.
            relaxations: number of relaxed crystals.
            wanted: whether a relaxed crystal is what the search is for, and so its end.
        """
        if self._tasks is None:
            reference = load_reference(self.config)
            self._tasks = search_here(self.config, reference, self.store, stages(self.config, reference))
        spent = self.ends[-1] if self.ends else 0.0
        while spent < seconds and self.relaxed < relaxations and self.reached(wanted) is None:
            began = time.process_time()
            rows = next(self._tasks, None)
            if rows is None:
                return
            taken, task = time.process_time() - began, rows[0].task
            if task not in self.seconds:
                if task in self._stored:  # the run was cut off before the seconds were
                    taken = sum(row.seconds for row in rows)
                self.seconds[task] = taken
                write_json(self.clock, self.seconds)
            spent += self.seconds[task]
            self.rows += rows
            self.ends += [spent] * len(rows)

    def reached(self, wanted: Callable[[Row], bool]) -> float | None:
        """CPU seconds until a relaxed crystal that is ``wanted`` was found."""
        found = zip(self.ends, self.rows, strict=True)
        return next((end for end, row in found if row.status == Status.RELAXED and wanted(row)), None)

    def within(self, seconds: float) -> list[tuple[float, Row]]:
        """CPU seconds and row of every candidate that was finished in time."""
        return [(end, row) for end, row in zip(self.ends, self.rows, strict=True) if end <= seconds]


_LOADED: dict[str, Stages] = {}


def stages(config: SearchConfig, reference: Reference) -> Stages:
    """The stages of a search; networks are loaded once for all searches that use the same ones."""
    networks = f"{config.models.potential} {config.models.weights}"
    if networks not in _LOADED:
        _LOADED[networks] = load_stages(config, reference)
    loaded, frameworks = _LOADED[networks], config.frameworks
    relaxer = copy.copy(loaded.relaxer)
    relaxer.relaxation, relaxer.screening = config.relaxation, config.screening
    relaxer.hull = hull_energies(config, reference)
    own = Analyser(reference, config.compositions.elements, frameworks.guests, frameworks.tolerances, config.screening)
    return Stages(loaded.maker, relaxer, own)
