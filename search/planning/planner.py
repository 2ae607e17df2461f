"""The campaign in a process of its own, so that the driver has its hands free while a round is planned."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.campaign import Campaign
from search.planning.prepare import volume_estimate
from search.planning.tasks import Task
from search.storage.results import dictionaries


class Planner:
    """Keeps what is known of all complete rounds and plans the next ones.

    Args:
        config: the search.
        reference: phases of the system.
    """

    def __init__(self, config: SearchConfig, reference: Reference) -> None:
        self.campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
        self.known, self.rounds = self.campaign.known(), 0

    def ready(self) -> str:
        """Return the class name, once the constructor has done its work."""
        return type(self).__name__

    def plan(
        self, number: int, told: int, rounds: Sequence[pa.Table], pending: Sequence[pa.Table] | None
    ) -> list[Task] | str:
        """The tasks of a round, or the reason why it need not be planned.

        Args:
            number: of the round.
            told: rounds that this planner was given before.
            rounds: rows of rounds that are complete since, see `storage.results.PLANNED`; known ones are skipped.
            pending: candidates of the rounds between those and this one, see `search.planning.tasks.under_way`; None
                while there is more to tell, and nothing to be planned.

        Raises:
            ValueError: the planner has been started anew and was not given all rounds.
        """
        if self.rounds < told:
            raise ValueError(f"the planner knows {self.rounds} rounds, {told} were given to one before it")
        for rows in rounds[self.rounds - told :]:
            self.known.read(dictionaries(rows))
            self.rounds += 1
        if pending is None:
            return []
        reason = self.known.ending.reason(number)
        return reason or self.campaign.plan(number, self.known, [row for rows in pending for row in rows.to_pylist()])
