"""Codes for why a relaxation ended or a candidate was not relaxed, the same in code, tables and documentation."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Codes of the column ``reason``; docs/results.md explains each."""

    # rejected before relaxation, see `model.crystals.screening`
    EMPTY = "empty"
    NAN = "nan"  # also: the potential returned NaN
    FLAT_CELL = "flat_cell"
    VOLUME = "volume"
    NEEDLE = "needle"
    TOO_CLOSE = "too_close"
    ISOLATED = "isolated"
    DUPLICATE = "duplicate"

    # end of a relaxation, see `model.relaxation.relax`
    CONVERGED = "converged"
    STEP_LIMIT = "step_limit"
    WALL_TIME = "wall_time"
    EARLY_STOPPED = "early_stopped"
    NOT_PROMISING = "not_promising"
    VOLUME_RUNAWAY = "volume_runaway"
    ENERGY_RUNAWAY = "energy_runaway"
    FUSED_ATOMS = "fused_atoms"
    NO_ATOMS = "no_atoms"
    NOT_STARTED = "not_started"

    # failed calls of actors, see `actors.pool`
    ERROR = "error"
    CRASHED = "crashed"
    OOM = "oom"
    HUNG = "hung"
    NODE = "node"
