"""Crystals to train on."""

from pathlib import Path

import pandas as pd
import pytest

from tests.support.training import FLUORITE, ROCK_SALT, fluorite_of, rock_salt, row


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet file of rock salts (2 atoms) and fluorites (12 atoms); NaF and SrF2 are for validation."""
    rows = [row(name, rock_salt(name, a)) for name, a in ROCK_SALT.items()]
    rows += [row(name, fluorite_of(name, a)) for name, a in FLUORITE.items()]
    path = tmp_path_factory.mktemp("data") / "crystals.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path
