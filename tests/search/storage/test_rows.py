"""What is stored of a candidate: the columns, their tables in the documents, and rows that come back exactly."""

import ast
import re
from dataclasses import MISSING, dataclass, fields, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from model.crystals.crystal import Crystal
from model.crystals.matching import distance_fingerprints, packed
from model.reasons import Reason
from search.planning.campaign import Campaign
from search.planning.prepare import load_reference
from search.planning.round_plan import plan_round
from search.running.pipeline import search_here
from search.running.progress import Shown
from search.storage.results import ResultStore
from search.storage.rows import (
    ANALYSIS,
    CANDIDATE,
    JUDGE,
    ORIGIN,
    RELAXATION,
    TIME,
    HistoryRow,
    PendingRow,
    Row,
    Status,
    StoredCrystal,
    StoredFramework,
    column,
    explained,
    names,
    rows_of,
    schema,
    table_of,
)
from tests.support.configs import per_round
from tests.support.data import ROOT
from tests.support.simulated import Stages

GROUPS = (CANDIDATE, ORIGIN, RELAXATION, ANALYSIS, JUDGE, TIME)
KINDS = (PendingRow, HistoryRow, Row)
REQUIRED = [one.name for one in fields(Row) if one.default is MISSING]


@pytest.fixture(scope="module")
def rows(cobaltate, licoo2):
    """One with everything that a row can hold, one with nothing but what every row has, and those of a real task."""
    odd = Crystal(licoo2.lattice / 3, licoo2.fractional - 1 / 7, licoo2.numbers)
    found = StoredFramework(
        framework="full-f0",
        host=StoredCrystal.of(licoo2.select(licoo2.numbers != 3)),
        guests={"Li": 1, "Na": 2},
        space_group="R-3m",
        space_group_number=166,
        symprec=0.1,
        angle_tolerance=10.0,
        displacement=1 / 3,
        fingerprint=packed(distance_fingerprints([licoo2])[0]),
    )
    real = [row for row in cobaltate["rows"] if row.status != Status.FAILED]  # that one has NaN, which equals nothing
    full = replace(
        real[0],
        candidate="full",
        bravais_lattice="hR",
        prototype="mp-22526",
        parent="other",
        framework="other-f0",
        framework_space_group="R-3m",
        framework_symprec=0.2,
        framework_displacement=0.1 + 0.2,
        samples=3,
        guests=["Li", "Na"],
        duplicate_of="another",
        known="mp-22526",
        detail="of the error",
        polished=True,
        polish_fall=0.02,
        saddle_fall=0.01,
        initial=StoredCrystal.of(odd),
        frameworks=[found, replace(found, framework="full-f1", guests={})],
        products={"Li": 0.1, "CoO2": 0.9},
        single_points=["Li"],
        judge="7net-0",
        e_d_judge=0.1,
        e_d_judge_first=0.2,
        energy_judge=-5.0,
        products_judge={"LiCoO2": 1.0},
        final_judge=StoredCrystal.of(odd),
        fingerprint_judge=b"\x00\x01",
        e_d_expected=0.05,
        e_d_expected_error=0.03,
        seconds_judge=1.5,
        seed=2**62 - 1,
    )
    return [full, Row(**{name: getattr(full, name) for name in REQUIRED}), *real]


# --- there and back -----------------------------------------------------------------------------------------------


def test_the_examples_have_every_column_filled_and_every_other_empty(rows):
    assert None not in rows[0].record.values()
    assert [name for name, value in rows[1].record.items() if value is not None] == [
        name for name in names(Row) if name in REQUIRED
    ]
    assert {row.status for row in rows} == {Status.RELAXED, Status.UNCONVERGED, Status.REJECTED}


def test_rows_come_back_from_a_table_exactly(rows):
    back = rows_of(table_of(rows, Row), Row)
    assert back == rows
    assert [type(row.status) for row in back] == [Status] * len(rows)
    for row, original in zip(back, rows, strict=True):
        for name in ("initial", "final"):
            one, other = getattr(row, name), getattr(original, name)
            assert (one is None and other is None) or one.crystal.identity == other.crystal.identity
    assert back[0].initial.crystal.identity != back[0].final.crystal.identity
    first, second = back[0].frameworks
    assert (first.guests, second.guests) == ({"Li": 1, "Na": 2}, {})
    assert back[1].frameworks is back[1].products is back[1].final is back[1].e_d is None


@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_planning_is_told_comes_back_exactly(rows, kind):
    known = [kind(**{name: getattr(row, name) for name in names(kind)}) for row in rows]
    assert rows_of(table_of(known, kind), kind) == known
    assert rows_of(table_of(rows, Row).select(names(kind)), kind) == known


def test_what_is_not_a_number_is_not_nothing(rows):
    (back,) = rows_of(table_of([replace(rows[0], energy=np.nan)], Row), Row)
    assert np.isnan(back.energy)


# --- columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_and_a_missing_column_are_refused(rows, kind):
    table = table_of(rows, Row).select(names(kind))
    with pytest.raises(TypeError, match=f"columns: colour; a {kind.__name__} has task, round, "):
        rows_of(table.append_column("colour", [["red"] * len(rows)]), kind)
    for name in names(kind):  # even one that may be empty
        with pytest.raises(TypeError, match=f"columns: {name}; a {kind.__name__} has task, round, "):
            rows_of(table.drop_columns(name), kind)


def test_an_unknown_and_a_missing_field_are_refused(rows):
    record = {name: getattr(rows[0], name) for name in names(Row)}
    with pytest.raises(TypeError, match="colour"):
        Row(**record, colour="red")
    for name in REQUIRED:
        with pytest.raises(TypeError, match=f"'{name}'"):
            Row(**{other: value for other, value in record.items() if other != name})


def test_columns_of_smaller_rows_are_columns_of_larger_ones():
    for small, large in pairwise(KINDS):
        assert names(large)[: len(names(small))] == names(small) != names(large)
        assert [schema(large).field(name) for name in names(small)] == list(schema(small))


def test_planning_needs_the_columns_of_history_and_no_others(make_config, tmp_path):
    """The next round follows from them alone, with settings to tune; and each of them is read, there or to be shown."""
    config = make_config(
        compositions={"cells": [{"Li": 2, "Si": 1}, {"Li": 3, "Si": 1}]},
        lattices={"volume_per_atom": 16.0},
        frameworks={"guests": ["Li"]},
        policy={"rounds": 3, **per_round(6, 6), "batch": 4, "rounds_ahead": 0},
        tuning={
            "sampling": {"diffusion": {"temperature": [0.2, 1.2]}},
            "relaxation": {"max_steps": [5, 9]},
            "samples": [1, 4],
        },
    )
    store = ResultStore(tmp_path)
    for _ in search_here(config, load_reference(config), store, Stages()):
        pass
    tasks = sorted(store.tasks())
    whole = store.rows(tasks)
    told = [row for task in tasks for row in rows_of(store.history(task), HistoryRow)]
    assert all(store.history(task).column_names == names(HistoryRow) for task in tasks)
    assert {row.role for row in told} == {"new", "from_host"}
    campaign = Campaign(config, lambda cell: 16.0)
    plans = [plan_round(campaign, 3, campaign.history(some)) for some in (whole, told, told[:-4])]
    assert described(plans[0]) == described(plans[1]) != described(plans[2])
    sources = [ROOT / "search" / "storage" / "rows.py", *(ROOT / "search" / "planning").glob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not set(names(HistoryRow)) - read - set(Shown._fields)


def described(plan):
    return [
        (task.identity, task.relaxation, task.max_parent_e_d, one.origin, one.settings, one.template.seed)
        for task in plan
        for one in task.candidates
    ]


def test_a_new_column_is_one_field(rows):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class LongerRow(Row):
        density: float | None = column(pa.float64(), RELAXATION, "of `final`", unit="g/cm³")

    longer = [LongerRow(**{name: getattr(row, name) for name in names(Row)}, density=2.5) for row in rows]
    table = table_of(longer, LongerRow)
    assert table.schema.field("density").type == pa.float64()
    assert table.column_names == [*names(Row), "density"]
    assert rows_of(table, LongerRow) == longer


# --- documents ----------------------------------------------------------------------------------------------------


def test_every_column_is_in_one_group():
    rows = [line for group in GROUPS for line in explained(group).splitlines()[2:]]
    assert sorted(line.split("`")[1] for line in rows) == sorted(names(Row))


@pytest.mark.parametrize("group", GROUPS)
def test_the_table_of_the_documents_is_that_of_the_columns(group):
    table = explained(group)
    assert len(table.splitlines()) > 3
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"\n\n{table}\n\n" in page, f"docs/results.md must hold this table:\n\n{table}"


def test_every_reason_is_explained():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    explained_there = set(re.findall(r"^\| (?:`\w+`)? ?\| `(\w+)` \|", page, re.MULTILINE))
    assert explained_there == set(Reason) - {Reason.CONVERGED}
