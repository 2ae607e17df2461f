"""Runs in an object store: a real S3 server on this machine, which checks signatures."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import boto3
import pandas as pd
import pytest
import requests
import yaml
from moto.server import ThreadedMotoServer

from search.config_file import load_config
from search.planning.planner import Planner
from search.planning.prepare import load_reference, same_search, write_run_metadata
from search.running.driver import Driver
from search.running.pipeline import search_here
from search.storage import lock
from search.storage.judgements import load_judgements
from search.storage.lock import locked
from search.storage.paths import StorePath, beside, require_lasting, run_path, write_whole
from search.storage.results import ResultStore, load_results
from search.storage.rows import StoredCrystal
from tests.support.configs import per_round
from tests.support.data import ROOT
from tests.support.simulated import Stages, pools_of

ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def server():
    """Address of a server with one bucket, `runs`, and the keys of a user who may use it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    open_to_all = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **open_to_all).create_bucket(Bucket="runs")
    users = boto3.client("iam", endpoint_url=url, **open_to_all)
    users.create_user(UserName="searcher")
    users.put_user_policy(UserName="searcher", PolicyName="all", PolicyDocument=json.dumps(ALLOW))
    keys = users.create_access_key(UserName="searcher")["AccessKey"]
    requests.post(f"{url}/moto-api/reset-auth", data=b"0", timeout=30)  # from here on signatures are checked
    yield url, keys["AccessKeyId"], keys["SecretAccessKey"]
    server.stop()


@pytest.fixture
def place(server, monkeypatch, request):
    """Address of a new run."""
    url, key, secret = server
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return f"s3://runs/{name}/li-si?endpoint_override={url}&region=us-east-1"


@pytest.fixture
def often(monkeypatch):
    """Signs of life every second and a half. S3's times are whole seconds."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1.5)


# --- addresses ----------------------------------------------------------------------------------------------------


def test_what_is_no_address_is_a_path(tmp_path):
    assert run_path("runs/li-si") == Path("runs/li-si")
    assert run_path(tmp_path) == tmp_path
    assert run_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"


def test_an_address_says_where_and_how(place):
    path = run_path(place)
    assert isinstance(path, StorePath)
    assert str(path) == place
    assert str(path / "candidates" / "a.parquet").startswith(place.partition("?")[0] + "/candidates/a.parquet?")
    assert (path.name, (path / "a.parquet").stem) == ("li-si", "a")
    assert run_path(path) is path
    assert beside(path) == Path("li-si")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://host/run", "begins with s3:// or gs://"),
        ("s3://bucket", "give a path in the bucket, for example s3://bucket/runs/li-si"),
        ("s3://key:secret@bucket/run", "must not contain a key"),
        ("s3://bucket/run?speed=high", "Unexpected query parameter"),
        (Path("s3://bucket/run"), "give an address as a string"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_is_asked(address, said):
    with pytest.raises(ValueError, match=said) as caught:
        run_path(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("run", ["runs/li-si", "{temporary}/li-si"])
def test_a_job_does_not_write_where_it_would_be_lost(tmp_path, monkeypatch, run):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = run_path(run.format(temporary=tmp_path))
    require_lasting(folder)  # outside a job anything goes
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"would be lost with the Ray job; give an absolute path"):
        require_lasting(folder)
    require_lasting(tmp_path.parent / "run")
    require_lasting(run_path("s3://bucket/run?region=us-east-1"))


# --- objects ------------------------------------------------------------------------------------------------------


def test_objects_are_like_files(place):
    run = run_path(place)
    (run / "candidates").mkdir(parents=True, exist_ok=True)
    assert list((run / "candidates").glob("*")) == []
    assert not (run / "config.yaml").exists()
    with pytest.raises(FileNotFoundError):
        (run / "config.yaml").read_bytes()
    write_whole(run / "config.yaml", "Å".encode())
    write_whole(run / "candidates" / "b.parquet", bytes(range(256)) * 1000)
    write_whole(run / "candidates" / "a.json", b"")
    assert (run / "config.yaml").read_text() == "Å"
    assert (run / "candidates" / "b.parquet").read_bytes() == bytes(range(256)) * 1000
    assert [path.name for path in (run / "candidates").glob("*.parquet")] == ["b.parquet"]
    assert [path.name for path in run.glob("*")] == ["config.yaml"]  # what lies deeper is not listed
    write_whole(run / "config.yaml", b"new")
    assert (run / "config.yaml").read_bytes() == b"new"
    (run / "config.yaml").unlink()
    (run / "config.yaml").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (run / "config.yaml").unlink()


@pytest.mark.slow
def test_many_objects_are_all_listed(place):
    folder = run_path(place) / "candidates"
    names = [f"{number:04d}.parquet" for number in range(1005)]  # a store answers with a thousand at most
    for name in names:
        write_whole(folder / name, b"x")
    assert sorted(path.name for path in folder.glob("*.parquet")) == names


@pytest.mark.parametrize(("key", "secret"), [("AKIAUNKNOWN", "x"), (None, "wrong")])
def test_wrong_credentials_are_named_with_the_remedy(place, monkeypatch, cobaltate, key, secret):
    if key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    for work in (
        lambda: load_results(place),
        lambda: ResultStore(run_path(place)).append("task", cobaltate["rows"]),
        lambda: locked(run_path(place)).__enter__(),
        lambda: load_config(run_path(place) / "config.yaml"),
    ):
        with pytest.raises(OSError, match=r"The store refuses these credentials: set AWS_ACCESS_KEY_ID") as caught:
            work()
        assert place.partition("?")[0] in str(caught.value)


def test_a_missing_bucket_is_named(place):
    with pytest.raises(OSError, match=r"s3://none/.*There is no such bucket: create it first"):
        write_whole(run_path(place.replace("//runs/", "//none/")) / "run.json", b"{}")


# --- results ------------------------------------------------------------------------------------------------------


def test_results_are_those_of_a_folder(place, tmp_path, cobaltate):
    with pytest.raises(ValueError, match="contains no results; run `hostguide search CONFIG --run s3://runs/"):
        load_results(place)
    for run in (run_path(place), tmp_path):
        store = ResultStore(run)
        store.append("b", cobaltate["rows"][:3])
        store.append("a", cobaltate["rows"][3:])
        assert store.tasks() == {"a", "b"}
    kept = {run: load_results(run, structures=False) for run in (place, tmp_path)}
    assert kept[place].map(repr).equals(kept[tmp_path].map(repr))
    rows = ResultStore(run_path(place)).rows(["b"])
    assert [row.candidate for row in rows] == [row.candidate for row in cobaltate["rows"][:3]]


# --- a driver that dies -------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@pytest.fixture
def tiny(make_config):
    return make_config(
        generators=["diffusion", "inpainting"],
        compositions={"cells": [{"Li": 2, "Si": 1}, {"Li": 3, "Si": 1}]},
        lattices={"volume_per_atom": 16.0},
        frameworks={"guests": ["Li"]},
        policy={"rounds": 3, **per_round(6, 3), "samples": 2, "batch": 3},
    )


@pytest.fixture
def undisturbed(tiny, tmp_path):
    """Its rows, made task after task in one process and kept in a folder."""
    for _ in search_here(tiny, load_reference(tiny), ResultStore(tmp_path / "undisturbed"), Stages()):
        pass
    return rows_of(tmp_path / "undisturbed")


def rows_of(run):
    timings = ["seconds_generate", "seconds_relax", "seconds_analyse"]
    return load_results(run, structures=False).drop(columns=timings).map(repr).sort_values("candidate")


def test_killed_at_any_write_the_search_ends_as_if_undisturbed(place, tiny, undisturbed, monkeypatch):
    """The driver and the store are real, the stages simulated; it ends before a write or right after it."""
    run, reference, write, moments = run_path(place), load_reference(tiny), StorePath.write_bytes, random.Random(3)
    left, reported, kills = 0, set(), 0

    def fragile(path, content):
        nonlocal left
        left -= 1
        if left < 0 or (left == 0 and moments.random() < 0.5):  # from here on nothing is written, by no thread
            raise Killed
        write(path, content)
        if left == 0:
            raise Killed

    monkeypatch.setattr(StorePath, "write_bytes", fragile)
    while True:
        left = moments.randint(1, 4)
        driver = Driver(tiny, run, reference, pools_of(Planner(tiny, reference)))
        try:
            assert driver.run(threading.Event()).summary.finished
            break
        except Killed:
            kills += 1
            driver.writer.close()
        stored = ResultStore(run).tasks()
        assert reported <= stored
        reported = stored
    left = 2
    driver.close()
    assert kills > 3
    pd.testing.assert_frame_equal(rows_of(place), undisturbed)
    events = [json.loads(line)["event"] for path in run.glob("log-*.jsonl") for line in path.read_text().splitlines()]
    assert "started" in events


def test_another_search_is_refused(place, tiny):
    run, reference = run_path(place), load_reference(tiny)
    same_search(run, tiny, reference)
    write_run_metadata(run, tiny, reference)
    same_search(run, tiny, reference)
    assert load_config(run / "config.yaml") == tiny
    with pytest.raises(ValueError, match=r"s3://runs/.* contains a search with a different configuration \(seed"):
        same_search(run, tiny.model_copy(update={"seed": 4}), reference)


@pytest.mark.slow
def test_a_process_that_was_killed_is_followed_by_one_that_finishes(place, tiny, undisturbed, tmp_path):
    """With Ray, signal and lease as they are; only the stages are simulated."""
    config, faults = tmp_path / "tiny.yaml", tmp_path / "faults"
    config.write_text(yaml.safe_dump(tiny.model_dump(mode="json")))
    faults.mkdir()
    command = [sys.executable, "-m", "tests.support.chaos_search", config, place, faults]
    killed = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 240
    while len(ResultStore(run_path(place)).tasks()) < 2:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    assert len((run_path(place) / lock.FOLDER).changed()) == 1  # what it left behind
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "was running a search here" in second.stderr
    pd.testing.assert_frame_equal(rows_of(place), undisturbed)
    assert (run_path(place) / lock.FOLDER).changed() == {}


# --- one driver ---------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_and_says_who_has_the_run(place, often):
    run = run_path(place)
    with locked(run) as check:
        check()
        with pytest.raises(ValueError, match=rf"process {os.getpid()} on .* is running a search in s3://"):
            locked(run).__enter__()
        check()
        assert len((run / lock.FOLDER).changed()) == 1  # the one that was refused has left nothing
    assert (run / lock.FOLDER).changed() == {}
    with locked(run) as check:
        check()


def test_what_a_killed_driver_left_is_passed_over_after_a_while(place, often, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 4.0)
    left = run_path(place) / lock.FOLDER / "left.json"
    write_whole(left, json.dumps({"host": "gone", "process": 4711}).encode())
    began = time.monotonic()
    with locked(run_path(place)) as check:
        check()
        assert not left.exists()
    assert time.monotonic() - began > 3  # it might have been alive


def test_a_driver_that_lost_its_run_stores_nothing_more(place, often):
    run = run_path(place)
    with locked(run) as check:
        (mine,) = (run / lock.FOLDER).glob("*.json")
        mine.unlink()  # as another driver does that has seen no sign of life for long
        time.sleep(lock.BEAT_SECONDS + 1)  # the next sign of life is not written, and says nothing of its own
        with pytest.raises(RuntimeError, match="another search has taken over s3://"):
            check()
    assert (run / lock.FOLDER).changed() == {}


def test_of_drivers_that_start_at_once_one_at_most_goes_on(place, often):
    inside, most, begin = [], [], threading.Barrier(3)

    def drive(number):
        begin.wait()
        try:
            with locked(run_path(place)):
                inside.append(number)
                most.append(len(inside))
                time.sleep(4)
                inside.remove(number)
        except ValueError:
            pass

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert max(most, default=0) <= 1


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(place, cobaltate, lisi, make_config, monkeypatch, tmp_path):
    """A run with one crystal of Li-Si; what commands write beside it goes to an empty folder."""
    monkeypatch.chdir(tmp_path)
    run, crystal = run_path(place), StoredCrystal.of(lisi)
    columns = {"candidate": "a", "formula": "LiSi", "n_atoms": 2, "e_d": -0.02}
    analysis = {"frameworks": [], "products": {"LiSi": 1.0}}
    row = replace(cobaltate["rows"][0], **columns, **analysis, initial=crystal, final=crystal)
    ResultStore(run).append("task", [row])
    write_whole(run / "config.yaml", yaml.safe_dump(make_config().model_dump(mode="json")).encode())
    return run


def test_every_command_that_takes_a_run_takes_an_address(place, stored, call, tmp_path):
    for arguments, made in (
        (["results", place], "li-si/best/*.cif"),
        (["export", place, "--format", "extxyz", "--out", "out"], "out/crystals.extxyz"),
        (["report", place], "li-si/report.html"),
        (["plot", place], "li-si/plots/hull.png"),
        (["analyse", place], "li-si/analysis/coordination.csv"),
        (["dft", "write", place, "--out", "inputs"], "inputs/*/INCAR"),
    ):
        code, out, error = call(*arguments)
        assert code == 0, error
        assert list(tmp_path.glob(made)), out
    code, _, error = call("dft", "read", tmp_path / "inputs", "--run", place)
    assert code == 2 and "contain no vasprun.xml" in error  # the run itself was accepted
    assert not (tmp_path / "s3:").exists()


@pytest.mark.slow
def test_judgements_are_stored_in_the_store(place, stored, call):
    code, out, error = call("judge", place, "--with", "chgnet-r2scan")
    assert (code, error) == (0, "")
    assert [row.judge for row in load_judgements(run_path(place))] == ["chgnet-r2scan"]
    assert f"Stored in {stored / 'judges.parquet'}" in out
