"""`ray up` on machines of one's own, and a search on them: the commands of docs/cluster.md, one after another.

The machines are namespaces of this one (tests/support/hosts.sh): `desk`, where the user sits, `head`, `one` and `two`.
A folder of wheels on the desk stands for the package index, and moto for S3. All that was typed, and what it said, is
in the log that the test names when it fails, and keeps in build/ray-up.log.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml

from search.storage.results import load_results
from tests.support.configs import per_round
from tests.support.data import ROOT
from tests.support.hosts import HOME, USER, Hosts, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
WHEELS = ROOT / "build" / "wheels"
INSTALLED = ("pyproject.toml", "constraints.txt")
LOG = ROOT / "build" / "ray-up.log"
FILE = "configs/cluster/on-premises.yaml"
HERE = f"{HOME}/hostguide"  # the repository, on the desk as on the others
INDEX, STORE = 8001, 8002  # ports on the desk
DASHBOARD = "--address http://localhost:8265"
PER_ROUND = (12, 4)
SEARCH = {
    "name": "li-si-small",
    "compositions": {"system": "Li-Si", "max_atoms": 6},
    "frameworks": {"guests": ["Li"]},
    "sampling": {"diffusion": {"kind": "heun", "steps": 4}, "inpainting": {"kind": "heun", "steps": 4}},
    "relaxation": {"max_steps": 40},
    "policy": {"rounds": 60, **per_round(*PER_ROUND), "samples": 2, "batch": 2},
}
STORE_UP = r"""
import boto3, json, requests
url = "http://desk:{port}"
keys = dict(aws_access_key_id="setup", aws_secret_access_key="setup", region_name="us-east-1", endpoint_url=url)
boto3.client("s3", **keys).create_bucket(Bucket="bucket")
users = boto3.client("iam", **keys)
users.create_user(UserName="searcher")
allow = dict(Version="2012-10-17", Statement=[dict(Effect="Allow", Action="s3:*", Resource="*")])
users.put_user_policy(UserName="searcher", PolicyName="all", PolicyDocument=json.dumps(allow))
made = users.create_access_key(UserName="searcher")["AccessKey"]
requests.post(url + "/moto-api/reset-auth", data=b"0")  # from here on signatures are checked
print("[default]", "aws_access_key_id = " + made["AccessKeyId"], sep="\n")
print("aws_secret_access_key = " + made["SecretAccessKey"])
"""


def pinned(package):
    """Version of a package in constraints.txt."""
    (version,) = re.findall(rf"^{package}==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


SUMMARY = """
import sys
from search.storage.paths import run_path
print((run_path(sys.argv[1]) / "summary.json").read_text())
"""
ADDRESSES = {
    "HEAD-ADDRESS": "10.77.0.2",
    "[WORKER-ADDRESS, WORKER-ADDRESS]": "[10.77.0.3, 10.77.0.4]",
    "USER": USER,
}


class Session:
    """What the user types on the desk: the page's commands, with the names that the reader is to fill in."""

    def __init__(self, hosts, log):
        self.hosts, self.log, self.running = hosts, log, []
        page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
        before, _, rest = page.partition("## What it starts")
        own = re.search(r"^## Your own machines\n(.*?)^## ", rest, re.MULTILINE | re.DOTALL)[1]
        lines = re.findall(r"^ {4,}(\S.*)", re.sub(r"\\\n *", "", before + own), re.MULTILINE)
        self.page = [line.partition("   #")[0].strip() for line in lines]

    def documented(self, beginning, **names):
        """The page's one command that begins so, with these names in place of the reader's."""
        (command,) = dict.fromkeys(line for line in self.page if line.startswith(beginning))
        for name, value in {"USER": USER, **names}.items():
            command = command.replace(name, value)
        return command

    def process(self, command, **options):
        self.log.write(f"\n{time.strftime('%H:%M:%S')} $ {command}\n")
        self.log.flush()
        settings = {
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": HERE,
        }
        arguments = self.hosts.command("desk", command, HERE, **settings)
        return subprocess.Popen(arguments, text=True, stderr=subprocess.STDOUT, **options)

    def start(self, command):
        """Start a command in another terminal; the file in which what it says appears."""
        said = self.hosts.folder / f"terminal-{len(self.running)}"
        with said.open("w") as file:
            self.running.append(self.process(command, stdin=subprocess.DEVNULL, stdout=file))
        return said

    def close(self):
        """End what was started, and add to the log what it said."""
        for number, process in enumerate(self.running):
            process.kill()
            process.wait()
            self.log.write(f"\n$ {process.args[-1]}\n{(self.hosts.folder / f'terminal-{number}').read_text()}")

    def wait(self, reached, seconds):
        """Wait until this is true."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"not reached within {seconds} s (see {LOG})"
            time.sleep(1)

    def type(self, command, answer="", check=True, secret=False, seconds=2400):
        """Run a command to its end; what it says. Where it asks something, it is given a terminal."""
        if answer:
            command = f"script --quiet --return --command {shlex.quote(command)} /dev/null"
        said = ""
        with self.process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            end = threading.Timer(seconds, process.kill)
            end.start()
            process.stdin.write(answer)
            process.stdin.flush()
            for line in process.stdout:
                said += line
                self.log.write("(not shown)\n" if secret else line)
                self.log.flush()
        end.cancel()
        self.failed = process.returncode != 0
        assert not (check and self.failed), f"{command}\n{said}\n(see {LOG})"
        return said

    def until(self, what, command, seconds):
        """Repeat a command until it succeeds and says this."""
        deadline = time.monotonic() + seconds
        while not re.search(what, said := self.type(command, check=False)) or self.failed:
            assert time.monotonic() < deadline, f"{command} did not say {what}\n{said}\n(see {LOG})"
            time.sleep(2)
        return said


@pytest.fixture(scope="module")
def wheels():
    """All packages that a machine of the cluster installs, in the form of an index: a folder for each."""
    packages = [f"ray[default]=={pinned('ray')}", "setuptools>=77", "wheel", str(ROOT)]
    simple, ready = WHEELS / "simple", WHEELS / "ready"
    if ready.exists() and ready.stat().st_mtime > max((ROOT / name).stat().st_mtime for name in INSTALLED):
        return simple
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--constraint", ROOT / "constraints.txt"]
    done = subprocess.run([*command, "--dest", WHEELS, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr[-500:]}")
    for path in (path for path in WHEELS.iterdir() if path.is_file()):
        name = path.name.split("-")[0] if path.suffix == ".whl" else path.name.rpartition("-")[0]
        folder = simple / re.sub(r"[-_.]+", "-", name).lower()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).hardlink_to(path)
    ready.touch()
    return simple


@pytest.fixture(scope="module")
def hosts(wheels):
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="hosts-"))
    try:
        with Hosts(folder, "desk", "head", "one", "two") as made:
            for name in made.names:
                made.write(
                    name,
                    ".config/pip/pip.conf",
                    f"[global]\nindex-url = http://desk:{INDEX}/simple\ntrusted-host = desk\n",
                )
                made.write(name, ".bashrc", "export RAY_worker_niceness=0  # this machine has other work, too\n")
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def user(hosts, wheels):
    """The user at the desk, with the repository, its environment, an index and a store."""
    LOG.parent.mkdir(exist_ok=True)
    place = hosts.home("desk") / "hostguide"
    subprocess.run(["rsync", "-a", "--exclude=.git", "--filter=:- .gitignore", f"{ROOT}/", place], check=True)
    (place / "configs" / "li-si-small.yaml").write_text(yaml.safe_dump(SEARCH))
    (place / ".venv").mkdir()
    with LOG.open("w") as log:
        user = Session(hosts, log)
        user.type(f"mount --bind {sys.prefix} .venv")
        user.start(f"exec {sys.executable} -m http.server --directory {wheels.parent} {INDEX}")
        user.start(f"exec {sys.executable} -m moto.server --host 0.0.0.0 --port {STORE}")
        yield user
        user.close()


def stored(hosts, run):
    return len(list((hosts.folder / "shared" / run / "candidates").glob("[!_]*.parquet")))


def test_a_cluster_of_ones_own(hosts, user):
    run = "runs/li-si"
    small = {"li-si-cluster.yaml": "li-si-small.yaml", "/shared/runs/li-si": f"/srv/{run}"}
    submit = user.documented(f".venv/bin/ray job submit {DASHBOARD} --no-wait --submission-id li-si-1", **small)
    follow = user.documented(f".venv/bin/ray job logs {DASHBOARD} --follow li-si-1")

    # --- before the first start
    user.type(user.documented(".venv/bin/ray get-auth-token"))
    token = (hosts.home("desk") / ".ray" / "auth_token").read_text().strip()
    for name, value in ADDRESSES.items():
        user.type(f"sed -i 's/{re.escape(name)}/{value}/' {FILE}")

    # --- a head alone: the search says so, and what to look at
    hosts.cut("one")
    hosts.cut("two")
    user.type(user.documented(f".venv/bin/ray up {FILE}"), answer="y\n")
    user.start("exec " + user.documented(f".venv/bin/ray dashboard {FILE}"))
    user.until("", f".venv/bin/ray job list {DASHBOARD}", 120)
    user.type(submit)
    said = user.start("exec " + follow)
    user.wait(lambda: "s no worker has been in the cluster" in said.read_text(), 300)

    # --- the workers come
    hosts.join("one")
    hosts.join("two")
    user.wait(lambda: stored(hosts, run) > 2, 1800)
    cpus = len(os.sched_getaffinity(0))
    user.wait(lambda: f"the cluster now has {2 * cpus} CPUs" in said.read_text(), 900)
    status = user.type(user.documented(f'.venv/bin/ray exec {FILE} "ray status"'))
    assert f"/{2 * cpus}.0 CPU" in status

    # --- one is cut off and comes back
    before = said.read_text()
    hosts.cut("one")
    user.wait(lambda: f"the cluster now has {cpus} CPUs" in said.read_text()[len(before) :], 300)
    count = stored(hosts, run)
    user.wait(lambda: stored(hosts, run) > count + 2, 600)  # the other goes on
    before = said.read_text()
    hosts.join("one")
    user.wait(lambda: f"the cluster now has {2 * cpus} CPUs" in said.read_text()[len(before) :], 600)

    # --- stopped, resumed with fewer rounds, and read
    user.type(user.documented(f".venv/bin/ray job stop {DASHBOARD} li-si-1"))
    assert stored(hosts, run) >= count
    rounds = int(load_results(hosts.folder / "shared" / run, structures=False)["round"].max()) + 2
    user.type(
        f".venv/bin/ray exec {FILE} \"sed -i 's/rounds: 60/rounds: {rounds}/' hostguide/configs/li-si-small.yaml\""
    )
    user.type(submit.replace("li-si-1", "li-si-2"))
    said = user.type(follow.replace("li-si-1", "li-si-2"))
    found = load_results(hosts.folder / "shared" / run)
    assert found["candidate"].is_unique and found["formula"].nunique() > 1
    assert f"Finished: {len(found)} candidates" in said
    user.type(user.documented(f'.venv/bin/ray exec {FILE} "hostguide results', **small))

    # --- into an object store, with a driver that is killed
    keys = user.type(f"{sys.executable} -c {shlex.quote(STORE_UP.format(port=STORE))}", secret=True)
    for name in ("desk", "head"):
        hosts.write(name, ".aws/credentials", keys)
    place = f"s3://bucket/runs/li-si?region=us-east-1&endpoint_override=http://desk:{STORE}"
    into_store = shlex.quote(place).join(submit.split(f"/srv/{run}"))
    user.type(f".venv/bin/ray exec {FILE} \"sed -i 's/rounds: .*/rounds: 4/' hostguide/configs/li-si-small.yaml\"")
    user.type(into_store.replace("li-si-1", "li-si-3"))
    said = user.start("exec " + follow.replace("li-si-1", "li-si-3"))
    user.wait(lambda: re.search(r"\b[1-9]\d*/\d+ candidates", said.read_text()), 300)
    user.type(f".venv/bin/ray exec {FILE} \"pkill -KILL -f 'hostguide search'\"", check=False)
    user.wait(lambda: "'li-si-3' failed" in said.read_text(), 120)
    user.type(into_store.replace("li-si-1", "li-si-4"))
    said = user.type(follow.replace("li-si-1", "li-si-4"))
    assert "'li-si-4' succeeded" in said
    user.type(f".venv/bin/hostguide results {shlex.quote(place)}")
    summary = json.loads(user.type(f".venv/bin/python -c {shlex.quote(SUMMARY)} {shlex.quote(place)}"))
    assert summary["finished"] and 0 < summary["resumed"] < summary["candidates"]

    # --- nobody else is served, and no log has a secret
    ask = f"{sys.executable} -c 'import sys, urllib.request as web; web.urlopen(sys.argv[1])' http://"
    assert "Connection refused" in user.type(f"{ask}head:8265/api/jobs/", check=False)
    assert "401" in user.type(f"{ask}localhost:8265/api/jobs/", check=False)
    secrets = [token, re.search("secret_access_key = (.*)", keys)[1]]
    for name in hosts.names:
        for secret in secrets:
            assert hosts.output(name, f"grep -rlF {shlex.quote(secret)} /tmp /srv") == ""
    assert not any(secret in LOG.read_text() for secret in secrets)

    # --- the end
    user.type("pkill -f 'ray dashboard|-L 8265:'")
    user.type("ssh-keyscan 10.77.0.3 10.77.0.4 > ~/.ssh/known_hosts")  # the user has logged in to them before
    user.type(user.documented(f".venv/bin/ray down {FILE}"), answer="y\n")
    workers = {"WORKER-ADDRESS WORKER-ADDRESS": "10.77.0.3 10.77.0.4"}
    user.type(user.documented("for worker in", **workers))
    for name in ("head", "one", "two"):
        user.wait(lambda name=name: not [line for line in hosts.processes(name) if "sshd" not in line], 60)
