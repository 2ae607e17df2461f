"""A real host screened with the real potential, and hosts that are given up before anything is computed."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from search.electrodes.config import check_screen
from search.electrodes.curves import electrode
from search.electrodes.rows import Outcome
from search.electrodes.screener import GAVE_UP, Screener, ScreenTask

QUICK = {"inpainted": 0, "symmetric": 1, "voids": 2, "polish": False}


@pytest.fixture(scope="module")
def tis2() -> Crystal:
    cell = Lattice.hexagonal(3.42, 5.80)
    return Crystal.from_pymatgen(
        Structure.from_spacegroup("P-3m1", cell, ["Ti", "S"], [[0, 0, 0], [1 / 3, 2 / 3, 0.25]])
    )


def screener(**changes: object) -> Screener:
    content = {"guests": ["Li"], "contents": 2, "filling": QUICK, **changes}
    return Screener(check_screen(content, source="test"))


def task(crystal: Crystal | None, guest: str = "Li", problem: str = "") -> ScreenTask:
    return ScreenTask(identity="t", host="h", source="file", guest=guest, crystal=crystal, problem=problem, seed=5)


@pytest.fixture(scope="module")
def quick() -> Screener:
    return screener()


def test_tis2_takes_lithium_between_its_layers(quick, tis2):
    empty, half, *_ = rows = quick.screen(task(tis2))
    assert [row.count for row in rows] == [0, 1, 2] and empty.status == Outcome.EMPTY and empty.host_kept
    assert half.status == Outcome.FILLED and half.host_kept and half.coordination == "6 S (100 %)"
    found = electrode([row.record for row in rows])
    assert found.full_formula == "LiTiS2" and 1.4 < found.average_voltage < 2.4  # 2.1 V measured
    assert found.topotactic and abs(found.volume_change) < 0.12
    assert found.percolates == 2 and found.e_d_full < 0.02
    assert found.conversion_voltage >= found.average_voltage - 0.01  # LiTiS2 is what is stable


def test_lithium_is_taken_out_of_a_filled_host(tis2):
    filled = tis2.join(Crystal(tis2.lattice, [[0, 0, 0.5]], [3]))
    rows = screener(extract=True, contents=1).screen(task(filled))
    assert [row.count for row in rows] == [0, 1, 2] and rows[0].n_atoms == 3
    assert electrode([row.record for row in rows]).full_formula == "LiTiS2"


@pytest.mark.parametrize(
    ("crystal", "guest", "reason"),
    [
        (Crystal(4.2 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [12, 8]), "Li", "no_electrons"),
        (Crystal(3.1 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 14]), "Li", "contains_guest"),
        (Crystal(3.5 * np.eye(3), [[0, 0, 0]], [3]), "Li", "contains_guest"),
        (Crystal(4.2 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [96, 8]), "Li", "unknown_element"),
        (Crystal(2.2 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]], [27, 8, 8]), "Cs", "no_room"),
    ],
)
def test_hosts_that_cannot_work_are_given_up_at_once(quick, crystal, guest, reason):
    (row,) = quick.screen(task(crystal, guest))
    assert (row.status, row.reason) == (Outcome.GIVEN_UP, reason) and reason in GAVE_UP


def test_a_host_that_could_not_be_read_is_one_row(quick):
    (row,) = quick.screen(task(None, "", "no atoms"))
    assert (row.status, row.reason) == (Outcome.FAILED, "unreadable: no atoms")


def test_a_host_high_above_the_hull_is_given_up_with_all_its_contents(tis2):
    wide = tis2.replace(numbers=np.array([22, 8, 8]))  # TiO2 in the structure of TiS2
    empty, *others = screener(giving_up={"max_e_d": 0.001}).screen(task(wide))
    assert empty.status == Outcome.EMPTY and empty.e_d > 0.001
    assert others and all((one.status, one.reason) == (Outcome.GIVEN_UP, "e_d") for one in others)


def test_nothing_is_tried_beyond_a_voltage_that_is_too_low(tis2):
    rows = screener(giving_up={"min_voltage": 10.0}).screen(task(tis2))
    assert [row.reason for row in rows] == ["", "", "voltage"]
