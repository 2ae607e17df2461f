"""The campaign in a process of its own, so that the driver has its hands free while a round is planned."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from model.reference import Reference
from search.campaign import Campaign, Task
from search.config import SearchConfig
from search.prepare import volume_estimate


class Planner:
    """Keeps what is known of all complete rounds and plans the next ones.

    Args:
        config: the search.
        reference: phases of the system.
    """

    def __init__(self, config: SearchConfig, reference: Reference) -> None:
        self.campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
        self.rows: list[dict[str, Any]] = []

    def ready(self) -> str:
        """Return the class name, once the constructor has done its work."""
        return type(self).__name__

    def plan(self, number: int, told: int, rows: Sequence[dict[str, Any]], pending: Sequence[Task]) -> list[Task] | str:
        """The tasks of a round, or the reason why it need not be planned.

        Args:
            number: of the round.
            told: rows that this planner was given before.
            rows: further rows, of rounds that are complete since; see `search.results.PLANNED`.
            pending: tasks of the rounds between those and this one.

        Raises:
            ValueError: the planner has been started anew and was not given all rows.
        """
        if len(self.rows) < told:
            raise ValueError(f"the planner has {len(self.rows)} rows, {told} were given to one before it")
        self.rows[told:] = rows
        reason = self.campaign.stop_reason(number, self.rows)
        if reason:
            return reason
        tasks = self.campaign.plan(number, self.rows, pending)
        for row in rows:  # the campaign has read the crystals, which are most of a row; settings repeat
            row["final"] = row["frameworks"] = None
            row["sampler"], row["relaxation"] = sys.intern(row["sampler"]), sys.intern(row["relaxation"])
        return tasks
