import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Structure

from model.crystals.crystal import Crystal
from search.running.pipeline import Provenance, failed_rows
from search.storage.results import DamagedPart, ResultStore, load_results, write_json
from search.storage.rows import (
    ARROW_CRYSTAL,
    SCHEMA_VERSION,
    Row,
    Status,
    StoredCrystal,
    names,
    schema,
    table_of,
    unpack,
    unpack_or_raise,
)
from tests.support.rows import row_with

TIMINGS = ("seconds_generate", "seconds_relax", "seconds_analyse")
PROVENANCE = Provenance("chgnet-0.3.0", "packaged")


@pytest.fixture
def run(tmp_path, cobaltate):
    """A run folder that holds the cobaltate task and a task that failed."""
    store = ResultStore(tmp_path)
    store.append("00000-gen-000-test", cobaltate["rows"])
    failed = [
        replace(row, candidate=f"z{i}")
        for i, row in enumerate(failed_rows(cobaltate["task"], "oom", "killed", PROVENANCE))
    ]
    store.append("00001-gen-000-test", failed)
    return tmp_path


def equal(one, other):
    """Equality to the bit; NaN equals NaN, and a member of a `StrEnum` its text."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and np.isnan(one):
        return isinstance(other, float) and np.isnan(other)
    same_type = type(one) is type(other) or (isinstance(one, str) and isinstance(other, str))
    return same_type and one == other


# --- the store ----------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were(tmp_path, cobaltate):
    store = ResultStore(tmp_path)
    store.append("task", cobaltate["rows"])
    back = store.rows(["task"])
    assert len(back) == len(cobaltate["rows"]) == 6
    for row, original in zip(back, cobaltate["rows"], strict=True):
        assert type(row) is type(original) is Row
        assert list(row.record) == list(original.record) == names(Row) == schema(Row).names
        different = [name for name in row.record if not equal(row.record[name], original.record[name])]
        assert not different
        assert type(row.status) is Status


def test_the_example_has_rows_of_every_kind(cobaltate):
    rows = cobaltate["rows"]
    assert [row.status for row in rows] == ["relaxed", "relaxed", "unconverged", "rejected", "rejected", "failed"]
    assert [row.reason for row in rows] == ["", "", "step_limit", "too_close", "duplicate", "nan"]
    assert rows[4].duplicate_of == rows[1].duplicate_of == rows[0].candidate
    assert rows[0].frameworks
    assert [row.e_d is None for row in rows] == [False, False, False, True, True, True]


def test_structures_come_back_to_the_bit(tmp_path, cobaltate):
    store = ResultStore(tmp_path)
    store.append("task", cobaltate["rows"])
    for row, original in zip(store.rows(["task"]), cobaltate["rows"], strict=True):
        assert row.initial.crystal.identity == original.initial.crystal.identity
        if original.final is not None:
            assert row.final.crystal.identity == original.final.crystal.identity
        hosts = [[found.host.crystal.identity for found in one.frameworks or ()] for one in (row, original)]
        assert hosts[0] == hosts[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_stored_crystal_is_the_crystal(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 20))
    crystal = Crystal(rng.normal(size=(3, 3)) * 1e3, rng.normal(size=(n, 3)) / 3, rng.integers(1, 119, n))
    stored = StoredCrystal.of(crystal)
    assert stored.crystal.identity == unpack(stored.record).identity == crystal.identity
    table = pa.Table.from_pylist([{"c": stored.record}, {"c": None}], schema=pa.schema([("c", ARROW_CRYSTAL)]))
    first, second = table["c"].to_pylist()
    assert unpack(first).identity == crystal.identity
    assert unpack(second) is None


def test_tasks_are_those_that_are_stored(tmp_path, cobaltate):
    store = ResultStore(tmp_path)
    assert store.tasks() == set()
    store.append("b", cobaltate["rows"])
    store.append("a", [])
    assert store.tasks() == {"a", "b"}
    assert ResultStore(tmp_path).tasks() == {"a", "b"}
    assert store.rows(["a"]) == []


def test_rows_come_in_the_order_of_the_names(tmp_path, cobaltate):
    store = ResultStore(tmp_path)
    for task in "ab":
        store.append(task, [replace(row, task=task) for row in cobaltate["rows"][:2]])
    assert [row.task for row in store.rows(["b", "a"])] == ["b", "b", "a", "a"]


def test_a_task_stored_twice_is_there_once(tmp_path, cobaltate):
    store = ResultStore(tmp_path)
    store.append("task", cobaltate["rows"])
    store.append("task", cobaltate["rows"])
    assert len(load_results(tmp_path)) == len(cobaltate["rows"])
    assert load_results(tmp_path)["candidate"].is_unique


def test_nothing_temporary_stays_behind(run):
    assert sorted(path.name for path in (run / "candidates").iterdir()) == [
        "00000-gen-000-test.parquet",
        "00001-gen-000-test.parquet",
    ]


def test_torn_temporary_files_are_not_seen(run):
    expected = load_results(run)
    (run / "candidates" / "_tmp-4711-00002-gen-000-test.parquet").write_bytes(b"PAR1 and then the power went")
    assert ResultStore(run).tasks() == {"00000-gen-000-test", "00001-gen-000-test"}
    assert load_results(run)["candidate"].tolist() == expected["candidate"].tolist()


@pytest.mark.parametrize("left", [0, 3, 1000, -1])
def test_a_cut_part_is_named_with_its_remedy(run, left):
    path = run / "candidates" / "00000-gen-000-test.parquet"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"00000-gen-000-test\.parquet is damaged .* sets the file aside"):
        load_results(run)
    with pytest.raises(DamagedPart):
        ResultStore(run).rows(["00000-gen-000-test"])


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_bytes_that_a_disk_has_changed_are_noticed(run, place):
    path = run / "candidates" / "00000-gen-000-test.parquet"
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 8] = bytes(255 - byte for byte in content[start : start + 8])
    expected = load_results(run, structures=False)
    path.write_bytes(content)
    try:
        found = load_results(run, structures=False)
    except DamagedPart:
        return
    pd.testing.assert_frame_equal(found, expected)  # the bytes were statistics that reading does not need


def test_a_damaged_part_is_set_aside_and_its_task_is_open_again(run):
    store = ResultStore(run)
    assert (store.folder / store.set_aside("00000-gen-000-test")).exists()
    assert store.tasks() == {"00001-gen-000-test"}
    assert set(load_results(run)["task"].str.slice(0, 5)) == {"00000"}  # the rows of the other part name this task


def test_a_part_that_is_not_there_is_no_damaged_part(run):
    with pytest.raises(FileNotFoundError):
        ResultStore(run).rows(["00009-gen-000-test"])


@pytest.mark.parametrize("metadata", [{"schema_version": "0"}, {}])
def test_another_schema_version_is_refused(tmp_path, cobaltate, metadata):
    folder = ResultStore(tmp_path).folder
    table = table_of(cobaltate["rows"], Row).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "old.parquet")
    found = metadata.get("schema_version", "none")
    with pytest.raises(
        ValueError,
        match=rf"old\.parquet has results schema version {found}.*reads version {SCHEMA_VERSION}.*new folder",
    ):
        load_results(tmp_path)


def test_a_part_carries_the_schema_and_its_version(run):
    stored = pq.read_schema(run / "candidates" / "00000-gen-000-test.parquet")
    assert stored.equals(schema(Row))
    assert stored.metadata[b"schema_version"] == SCHEMA_VERSION.encode()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"b": 1, "a": [1.5, "Å"]})
    assert json.loads(path.read_text()) == {"a": [1.5, "Å"], "b": 1}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1.5, "Å"], "b": 1}


# --- the frame ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_run_says_how_to_get_results(tmp_path, exists):
    run = tmp_path / "run"
    if exists:
        ResultStore(run)
    with pytest.raises(ValueError, match=r"run contains no results; run `hostguide search CONFIG --run .*run` first"):
        load_results(run)


def test_the_lowest_e_d_comes_first_and_those_without_one_last(run):
    frame = load_results(run)
    known = frame["e_d"].dropna()
    assert len(frame) == 12
    assert len(known) == 3
    assert known.index.tolist() == [0, 1, 2]
    assert known.is_monotonic_increasing
    assert frame["candidate"][3:].is_monotonic_increasing
    assert frame.index.tolist() == list(range(12))


def test_a_repeated_crystal_is_listed_where_the_judge_put_the_first(tmp_path):
    said = {"judge": "7net-0", "e_d_expected_error": 0.03}
    rows = [
        row_with(candidate="a", e_d=-0.05, e_d_judge=0.04, e_d_expected=0.0, **said),
        row_with(candidate="b", e_d=-0.06, duplicate_of="a"),
        row_with(candidate="c", e_d=-0.07, duplicate_of="b"),
        row_with(candidate="d", e_d=-0.01, e_d_expected=0.05, **said),
        row_with(candidate="e", e_d=0.02, e_d_judge=0.01, e_d_expected=0.06, **said),
        row_with(candidate="f", e_d=-0.08, duplicate_of="d"),
        row_with(candidate="g", e_d=None),
    ]
    ResultStore(tmp_path).append("00000-000", rows)
    frame = load_results(tmp_path)
    assert frame["candidate"].tolist() == ["e", "a", "b", "c", "d", "f", "g"]
    np.testing.assert_array_equal(frame["e_d_believed"], [0.01, 0.04, 0.04, 0.04, 0.05, 0.05, np.nan])


def test_structures_are_pymatgens_or_none(run):
    frame = load_results(run)
    for column, source in (("structure", "final"), ("structure_initial", "initial")):
        assert frame[column].dtype == object
        for structure, packed in zip(frame[column], frame[source], strict=True):
            if packed is None:
                assert structure is None
            else:
                assert isinstance(structure, Structure)
                assert structure.composition.reduced_formula == "LiCoO2"
                assert Crystal.from_pymatgen(structure).identity == unpack_or_raise(packed).identity
    assert frame["structure"].notna().sum() == 4
    assert frame["structure_initial"].notna().sum() == 6


def test_structures_can_be_left_out(run):
    frame = load_results(run, structures=False)
    assert list(frame.columns) == [*names(Row), "e_d_believed", "judges", "e_d_low", "e_d_high", "judges_disagree"]


def test_a_run_without_any_structure_can_be_read(tmp_path, cobaltate):
    ResultStore(tmp_path).append("task", failed_rows(cobaltate["task"], "hung", "no answer", PROVENANCE))
    frame = load_results(tmp_path)
    assert len(frame) == 6
    assert frame["structure"].tolist() == [None] * 6
    assert frame["e_d"].isna().all()


def test_missing_values_are_missing_in_every_column(run):
    frame = load_results(run).set_index("candidate")
    failed, relaxed = frame.loc["z0"], frame[frame["status"] == "relaxed"].iloc[0]
    assert (failed["reason"], failed["detail"]) == ("oom", "killed")
    for name in ("e_d", "energy", "steps", "space_group", "space_group_number", "products", "parent", *TIMINGS[1:]):
        assert pd.isna(failed[name])
    for name in ("e_d", "energy", "steps", "space_group", "space_group_number", "evaluations", *TIMINGS):
        assert not pd.isna(relaxed[name])
    assert sum(relaxed["products"].values()) == pytest.approx(1)
    assert frame["n_atoms"].dtype.kind == "i"


def test_seeds_are_exact_beside_a_part_in_which_nothing_was_measured(tmp_path, cobaltate):
    failed = failed_rows(cobaltate["task"], "hung", "no answer", PROVENANCE)
    seeds = [2**61 + k for k in range(12)]  # one and the same as floats
    rows = [replace(row, seed=seed) for row, seed in zip([*cobaltate["rows"], *failed], seeds, strict=True)]
    store = ResultStore(tmp_path)
    store.append("a", rows[:6])
    store.append("b", rows[6:])
    assert sorted(load_results(tmp_path, structures=False)["seed"].tolist()) == seeds
