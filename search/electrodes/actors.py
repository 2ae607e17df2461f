"""The actor of a screen: a `Screener` limited to one thread, for `actors.pool.Pool`."""

from __future__ import annotations

from actors.workers import Worker
from search.electrodes.screener import Screener


class ScreenerActor(Worker, Screener):
    """Fills hosts; one core each."""
