"""Parts on their way to the disk or the store: written in threads, so that the driver does not wait for either."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import pyarrow as pa

from search.storage.results import ResultStore
from search.storage.rows import Row

THREADS = 16  # a store takes its time for each part, and takes many at once

Stored = Callable[[pa.Table, float], None]


class Writer:
    """Writes tasks; each is reported by `collect` once it lasts.

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
        """Begin to store a task; ``stored`` will be called with its rows as `ResultStore.history` reads them, and how
        many seconds it took.
        """
        began = time.monotonic()
        content, history = self.store.encoded(rows)
        future = self._threads.submit(self.store.write, task, content)
        self._under_way[future] = lambda: stored(history, time.monotonic() - began)

    def collect(self) -> None:
        """Report what is stored by now; raises OSError when something could not be."""
        for future in [future for future in self._under_way if future.done()]:
            report = self._under_way.pop(future)
            future.result()
            report()

    def finish(self) -> None:
        """Report everything once it is stored; raises OSError when something could not be."""
        wait(self._under_way, return_when=FIRST_EXCEPTION)
        self.collect()

    def close(self) -> None:
        """End the threads; what they are writing is written."""
        self._threads.shutdown(cancel_futures=True)
