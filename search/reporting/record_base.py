"""What all records of `--json` have in common: their base, and fields that several of them have."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Record(BaseModel):
    """Base of all records: made from rows of tables, in which NaN stands for what is not known."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    columns: ClassVar[Mapping[str, str]] = {}  # of the rows it is made from -> its fields, where names differ

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        named = {cls.columns.get(key, key): value for key, value in content.items()}
        values = {key: value.item() if isinstance(value, np.generic) else value for key, value in named.items()}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def shares(value: Any) -> Any:
    """Products as in a table, `0.87 Li7Si3 + 0.13 Li`, as a dictionary."""
    if not isinstance(value, str):
        return {} if value is None else value
    return {formula: float(share) for share, formula in re.findall(r"([\d.]+) (\w+)", value)}


def about(text: str, **more: Any) -> Any:
    """A field with its meaning."""
    return Field(description=text, **more)


Products = Annotated[
    dict[str, float], BeforeValidator(shares), about("phases it decomposes into -> fraction of the atoms")
]
Energy = Annotated[float | None, about("eV/atom")]
Decomposition = Annotated[
    float | None, about("decomposition energy, eV/atom: above (+) or below (−) the reference hull")
]
Group = Annotated[str | None, about("symbol of the space group, for example R-3m")]
Formula = Annotated[str, about("reduced formula")]
Atoms = Annotated[int, about("atoms in the cell")]
File = Annotated[str | None, about("its CIF")]
MaxForce = Annotated[float | None, about("largest force on an atom, eV/Å")]
