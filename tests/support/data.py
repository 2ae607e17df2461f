"""Where real data lie: what ships with the tests, and the whole set beside the repository where there is one."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PHASES = ROOT / "tests" / "data" / "materials_project" / "structures.parquet"  # see the README there
ENERGIES = PHASES.with_name("energies.parquet")
WHOLE = ROOT.parent / "shared" / "data"
WHOLE_PHASES = WHOLE / "mp_structures.parquet"
WHOLE_ENERGIES = WHOLE / "mp_energies.parquet"
needs_whole = pytest.mark.skipif(
    not (WHOLE_PHASES.is_file() and WHOLE_ENERGIES.is_file()),
    reason="the whole data set is not in ../shared/data; a part of it, which ships, is tested all the same",
)
