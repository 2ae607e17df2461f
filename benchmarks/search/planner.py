"""How many candidates a second the planner takes in and plans, on the stored rows of real runs of one system.

    python -m benchmarks.search.planner Ca-Ge runs/ca-ge-1 runs/ca-ge-2 --json planner.json

As in a search that is resumed, parts are read from the disk, and their rows are told to a planner round by round; now
and then a round is planned from all that it was told. Names of candidates differ between runs, so several runs make a
longer one. Times are CPU seconds of one thread. ``resume_seconds_per_million`` is what reading and telling a million
candidates take, if the time grows in proportion: then that of the last quarter equals that of the first.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from search.config_file import check_config
from search.planning.planner import Planner
from search.planning.prepare import load_reference
from search.storage.results import ResultStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", help="for example Ca-Ge")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--round", type=int, default=1024, help="candidates a round")
    parser.add_argument("--batch", type=int, default=32, help="crystals a task")
    parser.add_argument("--plan-every", type=int, default=4, help="rounds told between two plans")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record = measured(options) | {"host": platform.node()}
    print(json.dumps(record, indent=1))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per candidate of reading, telling and planning, and what follows from them."""
    config = check_config(
        {
            "name": "planner",
            "compositions": {"system": options.system, "max_atoms": 20},
            "policy": {"candidates_per_round": options.round, "batch": options.batch, "rounds": 10**6},
        },
        source="benchmark",
    )
    began = time.process_time()
    stores = [ResultStore(run) for run in options.runs]
    table = pa.concat_tables(store.history(task) for store in stores for task in sorted(store.tasks()))
    reading = (time.process_time() - began) / table.num_rows
    if table.num_rows < options.round * options.plan_every:
        raise SystemExit(f"{table.num_rows} candidates are too few for one plan; lower --round or --plan-every")
    planner = Planner(config, load_reference(config))
    planner.plan(0, 0, [], None)
    telling, planning = [], []
    for number in range(table.num_rows // options.round):
        rows = table.slice(number * options.round, options.round)
        telling.append(seconds(planner, number, [rows], None) / options.round)
        if (number + 1) % options.plan_every == 0:
            planning.append(seconds(planner, number + 1, [], []) / options.round)
    quarter = max(1, len(telling) // 4)
    known, planned = float(np.mean(telling)), float(np.mean(planning))
    return {
        "candidates": table.num_rows,
        "distinct": int(planner.history.novelty.new().sum()),
        "ms_reading": 1e3 * reading,
        "ms_telling": 1e3 * known,
        "ms_telling_first_and_last_quarter": [
            1e3 * float(np.mean(telling[:quarter])),
            1e3 * float(np.mean(telling[-quarter:])),
        ],
        "ms_planning": 1e3 * planned,
        "ms_planning_each": [1e3 * value for value in planning],
        "candidates_per_second": 1 / (known + planned),
        "resume_seconds_per_million": 1e6 * (reading + known),
    }


def seconds(planner: Planner, number: int, rows: Sequence[pa.Table], pending: Sequence[pa.Table] | None) -> float:
    """CPU seconds of one call of a planner that has been told all rounds before this one."""
    began = time.process_time()
    planner.plan(number, number, rows, pending)
    return time.process_time() - began


if __name__ == "__main__":
    main()
