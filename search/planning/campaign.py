"""What all rounds of a search share: its cells, the options for each, and the random seeds.

Deterministic: no clock, no Ray, no hidden state. Round k is planned from the results of rounds 0 .. k−1−rounds_ahead,
complete and in a fixed order. So the plan does not depend on which worker was faster, and a resumed run plans exactly
what an uninterrupted one would have planned. `search.planning.round_plan` plans one round.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from model.crystals.composition import CellFormula, parse_system
from model.generation.structure_types import StructureTypes
from model.generators.interface import Guests, with_guests
from model.generators.registry import GENERATORS, starting_from
from model.generators.roles import Start
from model.library.phases import packaged_library
from model.thermodynamics.correction import Correction
from search.config import SearchConfig
from search.planning.frameworks import (
    FrameworkPool,
    KnownFramework,
    fillings,
    frameworks_from_files,
    frameworks_of_library,
)
from search.planning.history import Parent, SearchHistory
from search.planning.policy import work_per_atom
from search.planning.tuning import RELAXATION, SAMPLES, Tuner
from search.storage.rows import HistoryRow, StoredFramework

OPTIONS_KEPT = 10_000  # cached lists of options, one per generator, crystal and cell


class Campaign:
    """The state shared by the planning of all rounds of one search.

    Args:
        config: the search.
        volume: estimate of the volume per atom (Å³) of a cell formula, for compositions without results.

    Raises:
        ValueError: a file of ``frameworks.files`` cannot be read, or no generator has anything to start from.
    """

    def __init__(self, config: SearchConfig, volume: Callable[[CellFormula], float]) -> None:
        self.config, self.volume = config, cache(volume)
        self.cells = {str(cell): cell for cell in config.compositions.expand()}
        self.digest = digest(config)
        self.files = frameworks_from_files(config.frameworks.files)
        self.types = known_types(config)
        check_beginning(config, self.files, self.types)
        self.known_hosts = self._known_hosts()
        self._fillings: dict[str, tuple[int, list[tuple[str, Guests]]]] = {}
        self._reached: dict[tuple[str, str], list[str]] = {}
        self._options: dict[tuple[str, str, str], Sequence[Any]] = {}

    def history(self, rows: Iterable[HistoryRow] = ()) -> SearchHistory:
        """History from the rows of complete rounds; `SearchHistory.read` adds later rounds."""
        policy = self.config.policy
        pool = FrameworkPool(self.config.frameworks.volume_change, [*self.files, *self.known_hosts], policy.max_parents)
        correction = Correction(self.config.compositions.elements) if self.config.judge else None
        history = SearchHistory(policy, pool, whole=not self.config.tuning.is_empty, correction=correction)
        history.read(rows)
        return history

    def _known_hosts(self) -> list[StoredFramework]:
        """Hosts of known phases, if the search fills any."""
        config = self.config
        fills = config.built_per_round and any(GENERATORS[name].start == Start.HOST for name in config.generators)
        limit = config.frameworks.known if fills else 0
        return frameworks_of_library(self.cells.values(), config.frameworks.guests, self.types, limit)

    def known_rounds(self, number: int) -> range:
        """Rounds on whose results the plan of round ``number`` is based."""
        return known_rounds(self.config, number)

    def fillings(self, framework: KnownFramework) -> list[tuple[str, Guests]]:
        """Possible fillings of a framework: formula of the filled cell, and the guests."""
        count, found = self._fillings.get(framework.name, (-1, []))
        if count != len(framework.guests):
            elements = self.config.frameworks.guests or self.config.compositions.elements
            guests = fillings(framework, self.cells.values(), elements, self.config.frameworks.guest_count_range)
            host = framework.host
            found = [(_cell_of(with_guests(host, some).composition.formula), some) for some in guests]
            self._fillings[framework.name] = len(framework.guests), found
        return found

    def reached_cells(self, generator: str, name: str) -> list[str]:
        """Cells into which a generator can change a crystal with this cell."""
        key = generator, name
        if key not in self._reached:
            own, row = CellFormula.parse(name), GENERATORS[generator]
            self._reached[key] = [other for other, cell in self.cells.items() if row.reaches(own, cell)]
        return self._reached[key]

    def options(self, generator: str, cell: str, parent: Parent | None = None) -> Sequence[Any]:
        """Options of a generator for a cell or for a parent crystal, see `model.generators.interface`."""
        row = GENERATORS[generator]
        key = generator, parent.name if parent else "", cell
        if key not in self._options:
            if len(self._options) >= OPTIONS_KEPT:
                self._options.clear()
            self._options[key] = row.options(self.cells[cell], self.types, parent.crystal if parent else None)
        return self._options[key]

    def seed(self, number: int, what: str, index: int) -> int:
        """Random seed below 2⁶², different for each round, purpose and index."""
        text = f"{self.digest}/{number}/{what}/{index}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def known_types(config: SearchConfig) -> StructureTypes:
    """The structure types that a search may use."""
    systems = [parse_system(one) for one in config.library.without_systems]
    if config.blind:
        systems.append(config.compositions.elements)
    formulas = config.library.without_formulas
    library = packaged_library()
    return StructureTypes(library.without(systems, formulas) if systems or formulas else library)


def check_beginning(config: SearchConfig, files: Sequence[StoredFramework], types: StructureTypes) -> None:
    """Check that the generators have something to start from.

    Args:
        config: the search.
        files: its hosts from files.
        types: the known structure types that it may use.

    Raises:
        ValueError: they have nothing to start from.
    """
    new = [name for name in config.generators if GENERATORS[name].start == Start.NOTHING]
    if new and not files and all(GENERATORS[name].has_options for name in new):
        cells = config.compositions.expand()
        if not any(GENERATORS[name].options(cell, types) for name in new for cell in cells):
            others = [name for name in starting_from(Start.NOTHING) if not GENERATORS[name].has_options]
            raise ValueError(
                f"generators: {', '.join(new)} has no known structure type for {', '.join(map(str, cells[:5]))}; "
                f"raise compositions.max_atoms or add {' or '.join(others)}"
            )
    filling = [name for name in config.generators if GENERATORS[name].start == Start.HOST]
    groups = {found.space_group_number: found.space_group for found in files}
    if not new and not any(GENERATORS[name].suits(number) for name in filling for number in groups):
        others = [name for name in starting_from(Start.HOST) if GENERATORS[name].suits(1)]
        raise ValueError(
            f"generators: {', '.join(filling)} need hosts with symmetry, but the hosts in frameworks.files have only "
            f"{', '.join(groups.values())}; add {' or '.join(others)}"
        )


def known_rounds(config: SearchConfig, number: int) -> range:
    """Rounds on whose results the plan of round ``number`` is based."""
    return range(max(0, number - config.policy.rounds_ahead))


def tuner(config: SearchConfig, rows: Sequence[HistoryRow], reward_threshold: float) -> Tuner:
    """Tuner of the configuration's tuned settings, with the results so far (ordered by candidate name)."""
    groups = {**config.sampling, RELAXATION: config.relaxation, SAMPLES: config.policy}
    return Tuner(config.tuning, groups, rows, reward_threshold, lambda row: work_per_atom(row, config.policy))


def read_trials(config: SearchConfig, rows: Iterable[HistoryRow]) -> Tuner:
    """The trials of a run whose configuration tunes something."""
    history = SearchHistory(config.policy, FrameworkPool(config.frameworks.volume_change), whole=True)
    history.read(rows)
    return tuner(config, history.rows, history.reward_threshold())


def digest(config: SearchConfig) -> str:
    """Hash (8 hexadecimal digits) of everything in the configuration that affects results, including hosts in files."""
    deciding = [config.result_defining(), *sorted(hosts(config))]
    return hashlib.blake2b(json.dumps(deciding).encode(), digest_size=4).hexdigest()


def hosts(config: SearchConfig) -> list[str]:
    """Names of the hosts in files; a name contains a hash of the crystal."""
    return [found.framework for found in frameworks_from_files(config.frameworks.files)]


def _cell_of(formula: str) -> str:
    return str(CellFormula.parse(formula))
