"""Run one search whose stages do no physics and misbehave as the files of a folder tell them to.

    python -m tests.support.chaos_search CONFIG RUN FAULTS

A file ``relax-kill-3`` in FAULTS makes the next call of a relaxer kill its process; it is renamed first, so that it
acts once. Only the chaos tests run this.
"""

import os
import signal
import sys
import time
from pathlib import Path

import psutil

from search.config_file import load_config
from search.planning.prepare import load_reference
from search.running.driver import run_search
from search.running.statistics import summary_lines
from search.storage.paths import run_path
from tests.support.simulated import StubAnalyser, StubMaker, StubRelaxer


class Local(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("cannot be pickled")


def raise_unpicklable():
    raise Local("odd")


def raise_error():
    raise ValueError("no volume")


def take_memory():
    """All that Ray lets its workers have, and a little more, but no more than that."""
    threshold, held = float(os.environ["RAY_memory_usage_threshold"]), []  # noqa: SIM112
    while psutil.virtual_memory().percent < 100 * threshold + 2:
        held.append(bytearray(b"x") * 100_000_000)
    time.sleep(3600)


ACTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(1),
    "hang": lambda: time.sleep(3600),
    "wait": lambda: time.sleep(30),
    "memory": take_memory,
    "unpicklable": raise_unpicklable,
    "error": raise_error,
}


class Misbehaving:
    """Looks for its orders before each call; the classes go to the actors by value, with the folder in them."""

    faults = Path(sys.argv[3])

    def obey(self, step):
        time.sleep(0.1)
        for order in sorted(self.faults.glob(f"{step}-*")):
            try:
                order.rename(order.with_name(f"done-{order.name}"))
            except FileNotFoundError:  # another actor was faster
                continue
            ACTS[order.name.split("-")[1]]()


class ChaosMaker(Misbehaving, StubMaker):
    def generate(self, templates, generators, settings):
        self.obey("generate")
        return super().generate(templates, generators, settings)


class ChaosRelaxer(Misbehaving, StubRelaxer):
    def relax(self, crystals, free, settings, guests, request=None):
        self.obey("relax")
        return super().relax(crystals, free, settings, guests, request)


class ChaosAnalyser(Misbehaving, StubAnalyser):
    def analyse(self, relaxed, guests_to_remove, found_phases, max_parent_e_d):
        self.obey("analyse")
        return super().analyse(relaxed, guests_to_remove, found_phases, max_parent_e_d)


if __name__ == "__main__":
    config = load_config(sys.argv[1])
    outcome = run_search(
        config, run_path(sys.argv[2]), load_reference(config), actors=(ChaosMaker, ChaosRelaxer, ChaosAnalyser)
    )
    print("\n".join(summary_lines(outcome.summary)))
    sys.exit(0 if outcome.summary.finished else 130)
