"""Voltage curves of rows whose voltages are known."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from search.commands.screen import _result
from search.electrodes.config import check_screen
from search.electrodes.curves import electrode, electrode_table, electrodes_of, topotactic_curve
from search.electrodes.driver import ScreenProgress
from search.electrodes.rows import ElectrodeRow, Outcome
from search.electrodes.store import ScreenStore, keep_config, load_rows
from search.reporting.records import json_text, schema
from tests.support.electrodes import FILLED, HOST, rows_of_host


def records(rows: list[ElectrodeRow]) -> list[dict]:
    return [row.record for row in rows]


def test_electrodes_are_printed_as_json_under_the_schema():
    found = [electrode(records(rows_of_host(voltages))) for voltages in ((4.0, 1.0), (-0.5, -1.0))]
    progress = ScreenProgress(stored=2, total=3)
    said = json.loads(json_text("screen", _result(Path("runs/a"), progress, found)))
    jsonschema.validate(said, schema("screen"))
    one, other = said["electrodes"]
    assert one["steps"] == [{"start": 0.0, "end": 1.0, "voltage": pytest.approx(4.0)}]
    assert other["status"] == "no_voltage" and other["steps"] == []


def test_one_stops_where_the_voltage_falls_by_more_than_half():
    found = electrode(records(rows_of_host((4.0, 1.0))))
    assert found.status == "electrode" and found.full_formula == "LiCoO2" and found.x == 1.0
    assert found.average_voltage == pytest.approx(4.0)
    assert found.steps == (pytest.approx((0.0, 1.0, 4.0)),)
    assert found.capacity == pytest.approx(273.8, abs=0.1)
    assert found.energy == pytest.approx(4.0 * found.capacity)
    assert found.volume_change == pytest.approx(FILLED.volume / HOST.volume - 1)
    assert found.conversion_voltage == pytest.approx(4.5) and found.inserts is False


def test_steps_that_fall_less_are_taken_together():
    found = electrode(records(rows_of_host((4.0, 3.0))))
    assert found.x == 2.0 and found.average_voltage == pytest.approx(3.5) and len(found.steps) == 2


def test_a_content_above_the_hull_is_no_step():
    found = electrode(
        records(rows_of_host((2.0, 3.0)))
    )  # the first would be reached at a lower voltage than the second
    assert found.steps == (pytest.approx((0.0, 2.0, 2.5)),)


def test_a_host_without_a_positive_voltage_is_said_to_have_none():
    found = electrode(records(rows_of_host((-0.5, -1.0))))
    assert found.status == "no_voltage" and found.average_voltage == pytest.approx(-0.5)


def test_a_host_that_is_given_up_has_its_reason():
    empty, first, _ = rows_of_host()
    gone = replace(first, status=Outcome.GIVEN_UP, reason="e_d", final=None, energy=None)
    assert electrode(records([empty, gone])).status == "e_d"
    assert electrode(records([replace(gone, count=None)])).status == "e_d"


def test_the_topotactic_curve_has_energies_of_its_own():
    step, _ = topotactic_curve(records(rows_of_host((4.0, 1.0))))
    assert step.voltage == pytest.approx(4.0 - 0.1 * len(FILLED))


def test_rows_come_back_from_disk_and_make_a_table(tmp_path):
    config = check_screen({"guests": ["Li"]}, source="test")
    keep_config(tmp_path, config)
    store = ScreenStore(tmp_path)
    store.store("t", rows_of_host())
    broken = ElectrodeRow(
        task="u", host="bad", source="b.cif", guest="", status=Outcome.FAILED, reason="unreadable: x", potential="p"
    )
    store.store("u", [broken])
    frame = load_rows(tmp_path)
    assert [ElectrodeRow.from_record(row.record).record for row in rows_of_host()] == records(rows_of_host())
    best, worst = electrodes_of(frame)
    assert best.average_voltage == pytest.approx(4.0) and worst.status == "unreadable: x"
    table = electrode_table([best, worst])
    assert table.loc[0, "steps"] == "0–1: 4.00" and len(table) == 2
    assert isinstance(table, pd.DataFrame)


def test_another_screen_in_the_same_folder_is_refused(tmp_path):
    keep_config(tmp_path, check_screen({"guests": ["Li"]}, source="test"))
    keep_config(tmp_path, check_screen({"guests": ["Li", "Mg"]}, source="test"))  # more ions are welcome
    with pytest.raises(ValueError, match="contents \\(was 4, now 2\\)"):
        keep_config(tmp_path, check_screen({"guests": ["Li"], "contents": 2}, source="test"))
