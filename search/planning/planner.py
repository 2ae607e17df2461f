"""The campaign in a process of its own, so that planning a round does not block the driver."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.campaign import Campaign
from search.planning.prepare import volume_estimate
from search.planning.round_plan import plan_round
from search.planning.tasks import Task
from search.storage.rows import HistoryRow, PendingRow, rows_of


class Planner:
    """Keeps what is known of all complete rounds and plans the next ones.

    Args:
        config: the search.
        reference: phases of the system.
    """

    def __init__(self, config: SearchConfig, reference: Reference) -> None:
        self.campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
        self.history, self.rounds = self.campaign.history(), 0

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
            rounds: `HistoryRow`s of further rounds, complete since, one table each; known ones are skipped.
            pending: `PendingRow`s of the rounds between those and this one; None while there is more to tell, and
                nothing to be planned.

        Raises:
            ValueError: the planner has been started anew and was not given all rounds.
        """
        if self.rounds < told:
            raise ValueError(f"the planner knows {self.rounds} rounds, {told} were given to one before it")
        for rows in rounds[self.rounds - told :]:
            self.history.read(rows_of(rows, HistoryRow))
            self.rounds += 1
        if pending is None:
            return []
        reason = self.history.stopping.reason(number)
        if reason is not None:
            return reason
        return plan_round(
            self.campaign, number, self.history, [row for some in pending for row in rows_of(some, PendingRow)]
        )
