"""Files are written whole or not at all, and a lock lives as long as its process."""

import os
import signal
import subprocess
import sys

import pytest

from model.files import held_alone, written_whole
from tests.support.data import ROOT

HOLD = """
import sys, time
from pathlib import Path
from model.files import held_alone
with held_alone(Path(sys.argv[1]), str):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_changes_as_a_whole_when_the_block_ends(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text("old")
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old" and temporary.parent == tmp_path
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("written", [True, False])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, written):
    path = tmp_path / "card.yaml"
    path.write_text("old")

    def fail():
        with written_whole(path) as temporary:
            if written:
                temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_take_its_place_leaves_nothing(tmp_path):
    (tmp_path / "folder" / "full").mkdir(parents=True)

    def write():
        with written_whole(tmp_path / "folder") as temporary:
            temporary.write_text("new")

    with pytest.raises(OSError, match="folder"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_lock_is_refused_while_it_is_held_and_free_afterwards(tmp_path):
    path = tmp_path / "lock"
    with held_alone(path, str):
        with (
            pytest.raises(ValueError, match=rf"process {os.getpid()} on .* is here"),
            held_alone(path, lambda holder: f"{holder} is here"),
        ):
            pass
        with pytest.raises(ValueError, match="process"), held_alone(path, str):  # being refused did not free it
            pass
    with held_alone(path, str):
        pass


def test_a_lock_goes_with_a_killed_process(tmp_path):
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"process {process.pid} on "), held_alone(path, str):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with held_alone(path, str):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
