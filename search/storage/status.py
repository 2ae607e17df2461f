"""What a search does at the moment, written by its driver and read by others while it runs."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from search.storage.paths import RunPath
from search.storage.results import write_json

FILE = "status.json"
EVERY_SECONDS = 10.0  # between two writes
SILENT_SECONDS = 120.0  # without a write: the driver is dead, if it is on another machine


def write_status(run: RunPath, **content: Any) -> None:
    """Write what the search does now; this process is its driver."""
    about = {"process": os.getpid(), "host": socket.gethostname(), "time": datetime.now(UTC).isoformat()}
    write_json(run / FILE, {**content, **about})


def read_status(run: RunPath, frame: pd.DataFrame | None) -> dict[str, Any]:
    """The fields of `search.reporting.records.Progress`, without the best crystals.

    Args:
        run: folder or address of the run.
        frame: its candidates; None if none is stored yet.
    """
    if frame is None:
        frame = pd.DataFrame({"status": [], "reason": [], "round": []})
    said: Mapping[str, Any] = json.loads((run / FILE).read_text()) if (run / FILE).exists() else {}
    state = _state(said) if said else "unknown"
    left = said.get("seconds_left")
    return {
        "run": str(run),
        "state": state,
        "doing": said.get("message", "") if state == "running" else "",
        "process": f"process {said['process']} on {said['host']}" if said else None,
        "changed": said.get("time"),
        "candidates": len(frame),
        "expected": said.get("expected"),
        "statuses": dict(Counter(frame["status"])),
        "reasons": dict(Counter(frame.loc[frame["reason"] != "", "reason"]).most_common()),
        "round": int(frame["round"].max()) + 1 if len(frame) else None,
        "minutes_left": left / 60 if state == "running" and left is not None else None,
        "actors": said.get("actors", {}) if state == "running" else {},
        "notes": said.get("notes", []),
    }


def _state(said: Mapping[str, Any]) -> str:
    """How its driver left it, or whether that driver is alive."""
    if said["message"] in ("finished", "stopped"):
        return str(said["message"])
    if said["host"] != socket.gethostname():
        silent = (datetime.now(UTC) - datetime.fromisoformat(said["time"])).total_seconds()
        return "running" if silent < SILENT_SECONDS else "killed"
    try:
        os.kill(said["process"], 0)
    except ProcessLookupError:
        return "killed"
    except PermissionError:  # it lives, but is someone else's
        pass
    return "running"
