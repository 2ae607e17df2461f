"""Planning in a separate process, so that planning a round does not block the driver."""

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
    """Keeps the results of all complete rounds and plans the next ones.

    Args:
        config: the search.
        reference: phases of the system.
    """

    def __init__(self, config: SearchConfig, reference: Reference) -> None:
        self.campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
        self.history, self.rounds = self.campaign.history(), 0

    def ready(self) -> str:
        """Return the class name; called to find out when the constructor has finished."""
        return type(self).__name__

    def plan(
        self, number: int, told: int, rounds: Sequence[pa.Table], pending: Sequence[pa.Table] | None
    ) -> list[Task] | str:
        """The tasks of a round, or the reason to stop the search before it.

        Args:
            number: of the round.
            told: number of rounds that the planner was given before.
            rounds: `HistoryRow`s of the rounds completed since then, one table each; known ones are skipped.
            pending: `PendingRow`s of the rounds between those and this one; None if more complete rounds will follow
                first, so that nothing is planned yet.

        Raises:
            ValueError: the planner was restarted and has not been given all rounds.
        """
        if self.rounds < told:
            raise ValueError(f"the restarted planner has {self.rounds} rounds, its predecessor had {told}")
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
