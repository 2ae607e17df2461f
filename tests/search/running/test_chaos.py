"""Whatever happens on the way: every stored result is intact, no candidate is there twice, the search finishes, and its
rows are those of an undisturbed one.

The driver, the store and the campaign are the real ones. Actors are simulated in the fast tests, see `simulated`; the
slow ones run them on several Ray nodes.
"""

import json
import os
import random
import subprocess
import threading
from collections import Counter

import pandas as pd
import pytest

from model.stages import Rejected
from search.config import StopSettings
from search.planning.campaign import Campaign
from search.planning.planner import Planner
from search.planning.prepare import load_reference
from search.running.driver import Driver, Job
from search.running.journal import Attempt, Attempts, Journal
from search.running.pipeline import Provenance, guests_to_remove, search_here, task_rows
from search.running.rounds import Question
from search.running.statistics import summary_lines
from search.storage.results import ResultStore, load_results
from tests.support.simulated import Stages, planned, pools_of

TIMES = ["seconds_generate", "seconds_relax", "seconds_analyse"]
POLICY = {"rounds": 4, "candidates_per_round": 9, "new_share": 0.666667, "samples": 2, "batch": 3}


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(
        generators=["diffusion", "inpainting"],
        policy=POLICY,
        lattices={"volume_per_atom": 16.0},
        frameworks={"guests": ["Li"]},
    )


@pytest.fixture(scope="module")
def reference(config):
    return load_reference(config)


@pytest.fixture(scope="module")
def undisturbed(config, reference, tmp_path_factory):
    """Task after task in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for _ in search_here(config, reference, ResultStore(folder), Stages()):
        pass
    return comparable(load_results(folder, structures=False))


@pytest.fixture
def pools(config, reference):
    """A function that makes a pools, with a planner that knows nothing yet."""

    def made(*counts, **options):
        return pools_of(Planner(config, reference), *counts, **options)

    return made


@pytest.fixture
def search(config, reference, tmp_path, pools):
    """A function that starts or resumes the search with a pools and returns its driver."""

    def started(some=None, *, stop=None, run=tmp_path):
        driver = Driver(config, run, reference, some or pools())
        try:
            driver.outcome = driver.run(stop or threading.Event())
        finally:
            driver.close()
        return driver

    return started


def comparable(frame):
    return frame.drop(columns=TIMES).sort_values("candidate", ignore_index=True)


def assert_whole(run, expected):
    found = comparable(load_results(run, structures=False))
    assert found["candidate"].is_unique
    pd.testing.assert_frame_equal(found, expected)


def events(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def now_and_then(seed, share):
    """Each job fails at random, but of no cause as often as it takes to give it up."""
    rng, spent = random.Random(seed), Counter()

    def fault(job):
        cause = rng.choice(["error", "crashed", "oom", "hung", "node"])
        who = job.number if isinstance(job, Question) else (job.task.identity, job.alone)
        name = (who, cause)
        if rng.random() > share or spent[name] >= (4 if cause == "node" else 1):
            return None
        spent[name] += 1
        return cause

    return fault


def test_the_driver_gives_the_rows_of_the_pipeline(search, pools, undisturbed, tmp_path):
    driver = search()
    assert driver.outcome.summary.finished
    assert_whole(tmp_path, undisturbed)
    assert {"new", "from_host"} == set(undisturbed["role"])


def test_the_time_left_minds_the_hours_of_the_policy(config, reference, tmp_path):
    hours = config.policy.model_copy(update={"stop": StopSettings(hours=1e-9)})
    limited = config.model_copy(update={"policy": hours})
    driver = Driver(limited, tmp_path, reference, pools_of(Planner(limited, reference)))
    driver.run(threading.Event())
    driver.close()
    assert driver.progress.seconds_left == 0 and driver.progress.share == 1


@pytest.mark.parametrize("seed", range(2))
def test_failures_now_and_then_change_no_row(search, pools, undisturbed, tmp_path, seed):
    rng = random.Random(seed)
    driver = search(pools((2, 5, 2), fault=now_and_then(seed, 0.3), seconds=lambda *_: rng.lognormvariate(0, 1)))
    assert sum(driver.statistics.retries.values()) > 5
    assert driver.statistics.splits == 0 and not driver.statistics.failed
    assert_whole(tmp_path, undisturbed)
    assert not json.loads((tmp_path / "attempts.json").read_text())


def test_a_planner_that_is_lost_is_told_everything_again(search, pools, undisturbed, tmp_path, config, reference):
    lost = []

    def fault(job):
        if not isinstance(job, Question) or job.number in lost or job.number == 1:
            return None
        lost.append(job.number)
        some.pools["plan"].stage = Planner(config, reference)
        return "crashed"

    some = pools(fault=fault)
    driver = search(some)
    assert lost == [0, 2, 3]
    assert driver.statistics.retries == {"plan crashed": 3}
    assert_whole(tmp_path, undisturbed)


def test_a_planner_that_fails_again_and_again_ends_the_search_with_the_reason(search, pools, tmp_path):
    some = pools(fault=lambda job: "error" if isinstance(job, Question) and job.number == 2 else None)
    with pytest.raises(RuntimeError, match="round 2 cannot be planned: made to fail: error"):
        search(some)
    assert not load_results(tmp_path, structures=False).empty
    assert "round 2 cannot be planned" in json.loads((tmp_path / "summary.json").read_text())["notes"][-1]


def test_a_planner_notices_that_it_was_not_told_all(config, reference):
    with pytest.raises(ValueError, match="restarted planner has 0 rounds, its predecessor had 3"):
        Planner(config, reference).plan(4, 3, [], [])


def poison_of(undisturbed):
    """A candidate of the first round that has neighbours in its task, and how its crystal is known."""
    row = undisturbed[(undisturbed["round"] == 0) & (undisturbed["status"] == "relaxed")].iloc[1]
    neighbours = undisturbed[(undisturbed["task"] == row.task) & (undisturbed["candidate"] != row.candidate)]
    return row, neighbours


def test_a_candidate_that_goes_on_alone_leaves_the_row_that_it_leaves_in_its_batch(make_config):
    """In a batch of several generators each has its own evaluations and score model, and may repeat another."""
    config = make_config(generators=["random", "diffusion"], policy={"candidates_per_round": 5, "batch": 5})
    (task,) = planned(Campaign(config, lambda cell: 16.0), 0)
    stages, provenance = Stages(), Provenance("none", "none")
    made = stages.maker.generate(task.templates, task.generators, task.settings)
    assert {one.evaluations for one in made} == {0, 39}
    relaxed = stages.relaxer.relax([one.crystal for one in made], None, task.relaxation, task.guests)
    relaxed[3] = Rejected("duplicate", 2)
    whole = Job(task=task, made=made, relaxed=relaxed)
    analysed = stages.analyser.analyse(relaxed, guests_to_remove(task, relaxed), {}, 0.0)
    rows = task_rows(task, made, relaxed, analysed, provenance)
    assert rows[3].duplicate_of == rows[1].candidate
    for number, row in enumerate(rows):
        alone = whole.only(number, Attempt())
        own = task_rows(alone.task, alone.made, alone.relaxed, analysed[number : number + 1], provenance)
        assert own == [row]


def deadly(seed, cause, seen=None):
    """Whatever holds the crystal of this seed cannot be relaxed."""

    def fault(job):
        if (
            isinstance(job, Question)
            or job.step != "relax"
            or all(candidate.template.seed != seed for candidate in job.task.candidates)
        ):
            return None
        if seen is not None:
            seen[len(job.task.candidates)] += 1
        return cause

    return fault


@pytest.mark.parametrize("cause", ["oom", "hung"])
def test_a_crystal_that_kills_its_relaxer_takes_no_other_with_it(search, pools, undisturbed, tmp_path, cause):
    row, neighbours = poison_of(undisturbed)
    seen = Counter()
    driver = search(pools(fault=deadly(row.seed, cause, seen)))
    assert driver.outcome.summary.finished
    assert seen == {3: 2, 1: 2}  # twice with its neighbours, twice alone
    found = comparable(load_results(tmp_path, structures=False)).set_index("candidate")
    lost = found.loc[row.candidate]
    assert (lost["status"], lost["reason"], lost["detail"]) == ("failed", cause, f"made to fail: {cause}")
    assert list(found.index[found["status"] == "failed"]) == [row.candidate]
    assert len(neighbours) == 2
    pd.testing.assert_frame_equal(
        found.loc[neighbours["candidate"]], neighbours.set_index("candidate"), check_dtype=False
    )
    said = "\n".join(summary_lines(driver.outcome.summary))
    assert f"2 relax {cause}" in said and "split into single crystals: 1 task" in said and f"failed: 1 {cause}" in said
    failures = [event for event in events(tmp_path) if event["event"] == "failed"]
    assert [event.get("candidate") for event in failures] == [None, None, row.candidate, row.candidate]


def test_a_poisonous_crystal_is_remembered_when_the_driver_dies_too(search, pools, undisturbed, tmp_path):
    row, _ = poison_of(undisturbed)
    attempts, seen, deaths, before = tmp_path / "attempts.json", Counter(), [], 0

    def remembered():
        tasks = json.loads(attempts.read_text()) if attempts.exists() else {}
        return sum(number for task in tasks.values() for one in task.values() for number in one["failures"].values())

    def die_after_a_failure(_):
        if before != remembered():
            raise Killed

    while len(deaths) < 10:
        before = remembered()
        try:
            driver = search(EagerPools(pools(fault=deadly(row.seed, "crashed", seen)), die_after_a_failure))
            break
        except Killed:
            deaths.append(remembered())
    assert driver.outcome.summary.finished
    assert deaths[-1] == 0  # the last when the task was stored and forgotten
    assert 3 <= len(deaths) <= 5 and deaths[:-1] == sorted(set(deaths[:-1]))  # two failures may come within one wait
    assert max(seen.values()) <= 4  # one more each time than was counted: it was under way when the driver died
    frame = load_results(tmp_path, structures=False)
    assert list(frame.loc[frame["status"] == "failed", "candidate"]) == [row.candidate]


class EagerPools:
    """Actor pools that do something more at the start of each wait."""

    def __init__(self, pools, more):
        self._pools, self._more = pools, more

    def wait(self, seconds):
        self._more(seconds)
        return self._pools.wait(seconds)

    def __getattr__(self, name):
        return getattr(self._pools, name)


def test_killed_twenty_times_it_ends_as_if_undisturbed(search, pools, undisturbed, tmp_path, monkeypatch):
    """The process ends between any two of its writes, or within one of them."""
    moments, replace = random.Random(5), os.replace
    left = 0

    def fragile(*arguments):
        nonlocal left
        left -= 1
        if left <= 0:  # from here on nothing is written, by no thread
            raise Killed
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fragile)
    reported, kills, fault = set(), 0, now_and_then(5, 0.2)
    for _ in range(200):
        left = moments.choice([1, 1, 2, 3])
        try:
            search(pools((1, 3, 1), fault=fault))
            break
        except Killed:
            kills += 1
        stored = ResultStore(tmp_path).tasks()
        assert reported <= stored
        reported = stored
    assert kills >= 20
    assert_whole(tmp_path, undisturbed)
    assert not list((tmp_path / "candidates").glob("_*"))


@pytest.mark.parametrize("told_at_once", [1, 12, 20_000])
@pytest.mark.parametrize(
    ("lost", "planned"),
    [
        ("nothing", [2, 3]),  # with `rounds_ahead` 1, the round before the last one begun may be open
        ("00003-*", [1, 2, 3]),
        ("00001-001-*", [1, 2, 3]),
        ("00000-000-*", [0, 1, 2, 3]),
    ],
)
def test_rounds_that_are_stored_whole_are_not_planned_again(
    search, pools, undisturbed, tmp_path, monkeypatch, lost, planned, told_at_once
):
    search()
    for path in (tmp_path / "candidates").glob(f"{lost}.parquet"):
        path.unlink()
    left = len(load_results(tmp_path, structures=False))
    monkeypatch.setattr("search.running.rounds.TOLD_AT_ONCE", told_at_once)
    some, asked = pools(), []
    candidate = some.pools["plan"].stage.plan

    def noted(number, told, rounds, pending):
        asked.append((number, told, len(rounds), pending is not None))
        return candidate(number, told, rounds, pending)

    monkeypatch.setattr(some.pools["plan"].stage, "plan", noted)
    driver = search(some)
    assert [number for number, _, _, candidates in asked if candidates] == planned
    ends = [told + rounds for _, told, rounds, _ in asked]
    assert [told for _, told, _, _ in asked] == [0, *ends[:-1]]  # every round is told of once
    assert driver.outcome.summary.resumed == left
    assert_whole(tmp_path, undisturbed)


@pytest.mark.parametrize("left", [0, 10, 3000])
def test_a_part_that_was_cut_short_is_set_aside_and_its_task_done_again(search, pools, undisturbed, tmp_path, left):
    search()
    path = sorted((tmp_path / "candidates").glob("*.parquet"))[2]
    path.write_bytes(path.read_bytes()[:left])
    driver = search()
    assert_whole(tmp_path, undisturbed)
    aside = path.with_name(f"_damaged-{path.name}")
    assert aside.stat().st_size == left
    (note,) = [note for note in driver.progress.notes if "damaged" in note]
    assert path.name in note and aside.name in note
    assert driver.outcome.summary.resumed == len(undisturbed) - 3


def test_the_first_signal_brings_home_what_is_nearly_done(search, pools, tmp_path):
    stop = threading.Event()
    some = pools((1, 4, 1), seconds=lambda first, *_: 0.5)
    judge = some.pools["analyse"]
    driver = search(EagerPools(some, lambda _: len(judge.calls) and stop.set()), stop=stop)
    assert not driver.outcome.summary.finished
    assert driver.outcome.summary.candidates >= 3  # at the signal nothing was stored yet
    assert not judge.calls
    assert json.loads((tmp_path / "summary.json").read_text())["finished"] is False
    assert events(tmp_path)[-1]["event"] == "ended"


@pytest.fixture
def small_disk(tmp_path):
    """A disk that can be made larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_search_and_damages_nothing(search, undisturbed, small_disk):
    with pytest.raises(OSError, match=r"No space left on device: .* free some space and rerun the same command"):
        search(run=small_disk)
    stored = load_results(small_disk, structures=False)  # every part is whole
    assert 0 < len(stored) < len(undisturbed)
    assert not list((small_disk / "candidates").glob("_*"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    search(run=small_disk)
    assert_whole(small_disk, undisturbed)


def test_a_line_that_was_left_unfinished_spoils_no_other(tmp_path):
    journal = Journal(tmp_path)
    journal.note("first")
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "tor')
    journal = Journal(tmp_path)
    journal.note("second", task="a", message="Å")
    journal.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["first", "second"]


def test_failed_attempts_come_back_as_they_were(tmp_path):
    attempts = Attempts(tmp_path)
    attempts.add("a", None, "oom", "killed")
    attempts.add("a", 3, "hung", "no answer")
    attempts.add("a", 3, "hung", "no answer again")
    attempts.add("b", None, "node", "gone")
    attempts.forget("b")
    attempts.save()
    again = Attempts(tmp_path)
    assert again.of("a").failures == {"oom": 1}
    assert again.of("a", 3).failures == {"hung": 2} and again.of("a", 3).message == "no answer again"
    assert not again.of("b").failures and not again.of("c", 1).failures
