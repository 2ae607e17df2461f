"""Storing the rows of a screen: one immutable Parquet part per task, as in a search."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa

from model.diffusion.checkpoint import yaml_text
from search.electrodes.config import ScreenConfig, load_screen
from search.electrodes.rows import SCHEMA_VERSION, ElectrodeRow, schema
from search.storage.paths import RunPath, run_path, write_whole
from search.storage.results import READERS, ResultStore, parquet_bytes, parts_in, read_part

CONFIG = "screen.yaml"


class ScreenStore(ResultStore):
    """The ``candidates`` folder of a screen; one part per host and ion."""

    def store(self, task: str, rows: Sequence[ElectrodeRow]) -> None:
        """Store all rows of one task, or none if the process dies."""
        table = pa.Table.from_pylist([row.record for row in rows], schema=schema())
        self.write(task, parquet_bytes(table))


def is_screen(run: RunPath) -> bool:
    """Whether a folder holds a screen, and not a search."""
    return (run / CONFIG).is_file()


def keep_config(run: RunPath, config: ScreenConfig) -> None:
    """Write the configuration into the folder of a screen; hosts and ions may be added to those of an earlier start.

    Raises:
        ValueError: the folder contains a search, or a screen with other settings.
    """
    if (run / "config.yaml").is_file():
        raise ValueError(f"{run} contains a search: choose another --run for the screen")
    if is_screen(run):
        before = load_screen(run / CONFIG)
        if before.digest != config.digest:
            skipped = {"name", "hosts", "guests", "resources"}
            old, new = (one.model_dump(exclude=skipped) for one in (before, config))
            changed = [f"{key} (was {old[key]!r}, now {new[key]!r})" for key in new if old[key] != new[key]]
            raise ValueError(f"{run} contains a screen with other settings: {'; '.join(changed)}. Choose another --run")
    write_whole(run / CONFIG, yaml_text(config.model_dump(mode="json")).encode())


def load_rows(run: str | RunPath) -> pd.DataFrame:
    """All rows of a screen, by host, ion and content; crystals as they are stored, see `search.storage.rows.unpack`.

    Raises:
        ValueError: the folder contains no rows of a screen.
    """
    place = run_path(run)
    parts = parts_in(place / "candidates") if is_screen(place) else []
    if not parts:
        raise ValueError(f"{run} contains no results of a screen; run `hostguide screen HOSTS --guest Li --run {run}`")
    with ThreadPoolExecutor(READERS) as readers:
        table = pa.concat_tables(readers.map(lambda part: read_part(part, version=SCHEMA_VERSION), parts))
    frame = table.to_pandas()
    return frame.sort_values(["host", "guest", "count"], kind="stable", ignore_index=True)
