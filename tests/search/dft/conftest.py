"""What the tests of inputs and of results share."""

import pytest
from pymatgen.core import SETTINGS

from search.storage.results import ResultStore


@pytest.fixture
def run(tmp_path, cobaltate):
    ResultStore(tmp_path / "run").append("00000-gen-000-test", cobaltate["rows"])
    return tmp_path / "run"


@pytest.fixture
def no_potcars(monkeypatch):
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    monkeypatch.delitem(SETTINGS, "PMG_VASP_PSP_DIR", raising=False)
