"""Pieces of configurations."""

from typing import Any


def per_round(new: int, others: int) -> dict[str, Any]:
    """Policy fields for rounds of so many new crystals and, once there is something to build on, so many others."""
    return {"candidates_per_round": new + others, "new_share": new / (new + others)}
