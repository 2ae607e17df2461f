"""Why a relaxation ended, and why a candidate is not relaxed: one code for each, the same in code, tables and docs."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Codes of the column ``reason``; docs/results.md explains each."""

    # not worth relaxing, see `model.crystals.screening`
    EMPTY = "empty"
    NAN = "nan"  # also: the potential gave no number
    FLAT_CELL = "flat_cell"
    VOLUME = "volume"
    NEEDLE = "needle"
    TOO_CLOSE = "too_close"
    ISOLATED = "isolated"
    DUPLICATE = "duplicate"

    # ends of a relaxation, see `model.relaxation.relax`
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

    # calls of actors that failed, see `actors.pool`
    ERROR = "error"
    CRASHED = "crashed"
    OOM = "oom"
    HUNG = "hung"
    NODE = "node"
