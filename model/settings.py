"""Base of every settings object: immutable, and unknown keys are an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen settings that reject unknown keys and wrong types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
