"""Writing parts to disk or to an object store in threads, so that the driver does not wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import pyarrow as pa

from search.storage.results import ResultStore
from search.storage.rows import Row

THREADS = 16  # an object store is slow per part but accepts many at once

Stored = Callable[[pa.Table, float], None]


class Writer:
    """Writes tasks; `collect` reports each once it is stored.

    Args:
        store: of the run.
    """

    def __init__(self, store: ResultStore) -> None:
        self.store, self._threads = store, ThreadPoolExecutor(THREADS, thread_name_prefix="writer")
        self._under_way: dict[Future[None], Callable[[], None]] = {}

    @property
    def busy(self) -> bool:
        """Whether something is not stored yet."""
        return bool(self._under_way)

    def write(self, task: str, rows: Sequence[Row], stored: Stored) -> None:
        """Start storing a task. Once done, ``stored`` is called with its rows, as `ResultStore.history` reads them, and
        the time taken in seconds.
        """
        began = time.monotonic()
        content, history = self.store.encoded(rows)
        future = self._threads.submit(self.store.write, task, content)
        self._under_way[future] = lambda: stored(history, time.monotonic() - began)

    def collect(self) -> None:
        """Report the tasks stored so far; raises OSError if one could not be stored."""
        for future in [future for future in self._under_way if future.done()]:
            report = self._under_way.pop(future)
            future.result()
            report()

    def finish(self) -> None:
        """Wait for all tasks and report them; raises OSError if one could not be stored."""
        wait(self._under_way, return_when=FIRST_EXCEPTION)
        self.collect()

    def close(self) -> None:
        """End the threads after their current writes."""
        self._threads.shutdown(cancel_futures=True)
