"""Live progress of a search: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.driver import Progress
from search.storage import RunPath

SECONDS_BETWEEN_LINES = 15.0
SHOWN_FORMULAS = 12


@contextmanager
def shown(console: Console, run: RunPath) -> Iterator[Callable[[Progress], None]]:
    """A function that shows progress in the way that fits the console."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            yield lambda progress: live.update(panel(progress, run))
    else:
        yield _lines(console)


def _lines(console: Console) -> Callable[[Progress], None]:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < SECONDS_BETWEEN_LINES and progress.message == "running":
            return
        last = time.monotonic()
        console.print(line(progress))

    return report


def line(progress: Progress) -> str:
    """Everything that matters in one line."""
    counts = progress.counts
    best = min(progress.best.items(), key=lambda item: item[1][0], default=None)
    elapsed, inpainted = _clock(time.monotonic() - progress.began), counts["inpainted relaxed"]
    parts = [
        f"[{elapsed}] {progress.message}: {progress.done}/{progress.expected} candidates",
        f"{counts['generated relaxed'] + inpainted} relaxed ({inpainted} inpainted)",
        *([", ".join(f"{n} {reason}" for reason, n in progress.reasons.most_common(3))] if progress.reasons else []),
        *([f"best {best[0]} {best[1][1]} {1e3 * best[1][0]:+.0f} meV/atom"] if best else []),
        *(
            [f"about {_clock(progress.seconds_left)} left"]
            if progress.seconds_left is not None and progress.message == "running"
            else []
        ),
    ]
    return "; ".join(parts)


def panel(progress: Progress, run: RunPath) -> Group:
    """Bar, funnel and best E_d of each composition."""
    funnel = Table("stage", "relaxed", "unconverged", "rejected", "failed", box=None)
    for stage in ("generated", "inpainted"):
        funnel.add_row(
            stage,
            *(str(progress.counts[f"{stage} {status}"]) for status in ("relaxed", "unconverged", "rejected", "failed")),
        )
    best = Table("formula", "best E_d meV/atom", "space group", box=None)
    for formula, (e_d, group) in sorted(progress.best.items(), key=lambda item: item[1][0])[:SHOWN_FORMULAS]:
        best.add_row(formula, f"{1e3 * e_d:+.1f}", group)
    bar = Table.grid()
    bar.add_row(ProgressBar(total=progress.expected, completed=progress.done, width=60))
    left = "" if progress.seconds_left is None else f", about {_clock(progress.seconds_left)} left"
    reasons = ", ".join(f"{n} {reason}" for reason, n in progress.reasons.most_common(5))
    return Group(
        Text(
            f"{progress.message}, round {progress.round + 1}: {progress.done} of {progress.expected} candidates, "
            f"{_clock(time.monotonic() - progress.began)}{left}; Ctrl-C stops, {run} keeps everything"
        ),
        bar,
        funnel,
        Text(f"not relaxed: {reasons}" if reasons else ""),
        best,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
