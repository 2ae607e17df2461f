"""How long the commands take that people wait for: version, help, results, report, and until a search is at work.

    python -m benchmarks.search.startup RUN
    python -m benchmarks.search.startup runs/li-si --search configs/li-si.yaml --json startup.json

Each is run several times as a fresh process, and the best is kept: `wall` is what a user waits, `cpu` the seconds of
all cores, which other programs on the machine affect less. A search is at work once all its actors have started.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from search.storage.results import load_results

PROGRAM = [sys.executable, "-c", "from hostguide_start import main; main()"]
AT_WORK = "] running: "  # how a search says that its actors are there, see `search.running.progress.line`


def measured(arguments: list[str], times: int) -> dict[str, float]:
    """Best wall and CPU seconds of a command."""
    walls, spent = [], []
    for _ in range(times):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"wall": round(min(walls), 3), "cpu": round(min(spent), 3)}


def until_at_work(config: Path) -> float:
    """Wall seconds from the command until all actors of a search have started; the search is then stopped."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        search = subprocess.Popen(
            [*PROGRAM, "search", str(config), "--run", f"{folder}/run"], stdout=subprocess.PIPE, text=True
        )
        assert search.stdout is not None
        for line in search.stdout:
            if AT_WORK in line:
                break
        seconds = time.perf_counter() - began
        search.send_signal(signal.SIGINT)
        search.communicate()
    return round(seconds, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run, best one of about 1,000 rows")
    parser.add_argument("--search", type=Path, help="configuration of a search to start as well")
    parser.add_argument("--times", type=int, default=3, help="processes per command")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "--version": ["--version"],
            "--help": ["--help"],
            "results": ["results", str(arguments.run), "--cif", f"{folder}/best"],
            "report": ["report", str(arguments.run), "--out", f"{folder}/report.html"],
        }
        seconds = {name: measured(command, arguments.times) for name, command in commands.items()}
    found = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "rows": len(load_results(arguments.run, structures=False)),
        "seconds": seconds,
    }
    if arguments.search:
        found["seconds_until_a_search_is_at_work"] = min(
            until_at_work(arguments.search) for _ in range(arguments.times)
        )
    print(text := json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
