"""The panel of judges: what each says, what all say together, and what is kept of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from model.potentials.calculators import CalculatorSettings
from model.thermodynamics.judge import STABLE
from search.reporting.records import json_text
from search.storage.judgements import FILE, load_judgements, store_judgements, verdicts, with_judges
from search.storage.ranking import rank, remark
from search.storage.results import ResultStore, load_results
from search.studies.panel import Defendant, check_judges, of_run, take_panel
from tests.support.rows import judgement

EMT = "{calculator: ase.calculators.emt.EMT, energies: own, name: emt}"
LJ = "{calculator: ase.calculators.lj.LennardJones, arguments: {sigma: 2.3, rc: 5.0}, energies: own, name: lj}"


@pytest.fixture
def run(tmp_path, cobaltate):
    """A run with one crystal."""
    ResultStore(tmp_path).append("00000-gen-000-test", cobaltate["rows"][:1])
    return tmp_path


def test_the_spread_is_that_of_search_and_judges() -> None:
    rows = [judgement("a", e_d=0.01, judge="x", e_d_judge=-0.02), judgement("a", e_d=0.01, judge="y", e_d_judge=0.03)]
    (one,) = verdicts(rows)
    assert (one.low, one.high) == (-0.02, 0.03)
    assert one.spread == pytest.approx(0.05) and one.disagree


@pytest.mark.parametrize(
    ("search", "judge", "disagree"),
    [
        (-0.01, -0.05, False),
        (0.01, 0.09, False),
        (0.5 * STABLE, -0.05, False),
        (2 * STABLE, 0.0, True),
        (None, 0.3, False),
        (-0.01, math.nan, False),
    ],
)
def test_potentials_disagree_if_some_call_it_stable_and_others_do_not(search, judge, disagree) -> None:
    (one,) = verdicts([judgement("a", e_d=search, e_d_judge=judge)])
    assert one.disagree is disagree
    assert len(one.values) == sum(value is not None and math.isfinite(value) for value in (search, judge))


def test_json_has_no_nan() -> None:
    (one,) = verdicts([judgement("a", e_d=None, e_d_judge=math.nan, energy=math.nan, converged=False)])
    (said,) = json.loads(json_text("judge", [one.record]))
    judge = said["judges"]["chgnet-r2scan"]
    assert judge["e_d"] is judge["energy"] is said["e_d"] is said["spread"] is None
    assert judge["products"] == {"Li": 0.5, "Si": 0.5} and judge["converged"] is False


def test_what_was_said_is_kept_and_replaced_by_what_is_said_later(run) -> None:
    assert load_judgements(run) == []
    first = judgement("a", e_d_judge=0.1)
    store_judgements(run, [first, judgement("b")])
    assert load_judgements(run)[0] == first
    store_judgements(run, [judgement("a", e_d_judge=0.2), judgement("a", judge="another")])
    assert [(row.candidate, row.judge, row.e_d_judge) for row in load_judgements(run)] == [
        ("b", "chgnet-r2scan", 0.1),
        ("a", "chgnet-r2scan", 0.2),
        ("a", "another", 0.1),
    ]


def test_results_and_exports_have_the_columns(run, call, tmp_path) -> None:
    (row,) = ResultStore(run).rows(["00000-gen-000-test"])
    plain = load_results(run, structures=False)
    assert plain["judges"].tolist() == [{}] and not plain["judges_disagree"].any()
    assert plain["e_d_low"].isna().all()
    store_judgements(run, [judgement(row.candidate, e_d=row.e_d, judge="7net-l3i5", e_d_judge=-0.1)])
    frame = with_judges(plain, run)
    assert frame["judges"].tolist() == [{"7net-l3i5": -0.1}]
    assert frame["e_d_high"].tolist() == [row.e_d]
    assert "potentials disagree" in remark(rank(frame, top=1).iloc[0])
    code, out, err = call("export", run, "--format", "extxyz", "--out", tmp_path / "out")
    assert code == 0, err
    text = (tmp_path / "out" / "crystals.extxyz").read_text()
    assert "e_d_7net_l3i5=" in text and "e_d_low=" in text
    code, out, err = call("export", run, "--format", "ase-db", "--out", tmp_path / "out")
    assert code == 0, err
    code, out, err = call("results", run, "--cif", tmp_path / "best")
    assert code == 0 and "7net-l3i5" in out


def test_a_judge_is_another_potential_and_sits_once() -> None:
    one = Defendant(name="a", crystal=None, space_group=None, e_d=0.0, potential="chgnet-0.3.0")
    with pytest.raises(ValueError, match=r"--with chgnet-0\.3\.0: it computed these crystals itself"):
        check_judges(["chgnet-0.3.0"], [one])
    with pytest.raises(ValueError, match="--with chgnet-r2scan is given twice"):
        check_judges(["chgnet-r2scan", "chgnet-r2scan"], [])


def test_crystals_of_several_systems_have_hulls_of_their_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOSTGUIDE_CACHE", str(tmp_path))  # an empty one, so that there is something to report
    from model.library.phases import packaged_library

    library = packaged_library()
    crystals = {name: library.find(name)[0].crystal for name in ("Cu3Au", "Cu", "Al3Ni")}
    defendants = [Defendant(name=name, crystal=crystal, space_group=None) for name, crystal in crystals.items()]
    emt = CalculatorSettings(calculator="ase.calculators.emt.EMT", energies="own", name="emt")
    said = list[str]()
    rows = take_panel(defendants, [emt], report=lambda what, done, total: said.append(what))
    assert [row.candidate for row in rows] == list(crystals)
    assert all(row.converged and row.reference.startswith("known phases (emt, ") for row in rows)
    assert rows[0].e_d_judge == pytest.approx(0, abs=1e-3) and rows[1].e_d_judge == pytest.approx(0, abs=1e-3)
    assert set(said) >= {"emt: phases of Al-Ni", "emt: phases of Au-Cu", "emt: crystals"}


def test_the_command_prints_json_and_nothing_else(printed, tmp_path) -> None:
    from model.library.phases import packaged_library
    from search.storage.cif import write_cif

    write_cif(packaged_library().find("Cu3Au")[0].crystal, tmp_path / "alloy.cif")
    alloy, copper = printed("judge", tmp_path / "alloy.cif", "mp-30", "--with", EMT, "--with", LJ)
    assert (alloy["formula"], copper["formula"]) == ("Cu3Au", "Cu")
    assert alloy["space_group"] == "Pm-3m" and alloy["e_d"] is None
    assert set(alloy["judges"]) == {"emt", "lj"}
    assert sum(alloy["judges"]["emt"]["products"].values()) == pytest.approx(1)


def test_the_command_stores_what_it_prints(small_run, call) -> None:
    run = small_run
    code, out, err = call("judge", run, "--with", "chgnet-r2scan", "--top", 1)
    assert code == 0, err
    assert "LiSi" in out and "chgnet-0.3.0" in out and "spread" in out
    (row,) = load_judgements(run)
    assert (run / FILE).is_file()
    assert math.isfinite(row.e_d_judge) and row.reference.startswith("known phases (chgnet-r2scan")
    assert row.e_d_first >= row.e_d_judge - 1e-6
    (one,) = of_run(run, top=1)
    assert (one.name, one.e_d) == (row.candidate, row.e_d)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.cif", "--with", "mace"], "unknown potential 'mace'"),
        (["nothing.cif", "--with", "chgnet-r2scan"], "nothing.cif"),
        (["nothing.cif", "--with", "none.yaml"], "none.yaml does not exist"),
    ],
)
def test_bad_input_is_refused_before_any_work(call, arguments, words) -> None:
    code, _, err = call("judge", *arguments)
    assert code == 2 and words in err


def test_runs_and_files_are_judged_apart(run, call) -> None:
    code, _, err = call("judge", run, "x.cif", "--with", "chgnet-r2scan")
    assert code == 2 and "give one run or crystal files" in err


def test_rows_of_another_version_are_refused(run, monkeypatch) -> None:
    store_judgements(run, [judgement("a")])
    monkeypatch.setattr("search.storage.judgements.SCHEMA_VERSION", "2")
    with pytest.raises(ValueError, match="judge the run again"):
        load_judgements(run)


def test_a_row_survives_its_file(run) -> None:
    row = replace(judgement("a"), missing=["Li3P"], space_group=None, e_d=None, potential=None)
    store_judgements(run, [row])
    assert load_judgements(run) == [row]
