"""Progress of a running search, shown as a table in a terminal and as plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from model.generators.roles import Role
from search.storage.paths import RunPath
from search.storage.rows import Status

SECONDS_BETWEEN_LINES = 15.0
SHOWN_FORMULAS = 12


class Shown(NamedTuple):
    """The columns of a stored candidate that are used for progress."""

    role: str
    status: str
    reason: str
    formula: str
    e_d: float | None
    e_d_judge: float | None
    space_group: str | None

    @classmethod
    def of(cls, rows: pa.Table) -> list[Shown]:
        """One for each row of a table."""
        return list(map(cls._make, zip(*(rows.column(name).to_pylist() for name in cls._fields), strict=True)))


@dataclass(eq=False)
class Progress:
    """Progress of a running search."""

    expected: int  # candidates of the whole search
    judged: bool = False  # whether only E_d of the judge count
    began: float = field(default_factory=time.monotonic)
    resumed: int = 0  # candidates that were stored before this start
    counts: Counter[str] = field(default_factory=Counter)  # by role and status
    reasons: Counter[str] = field(default_factory=Counter)  # of all candidates that are not relaxed
    best: dict[str, tuple[float, str | None]] = field(default_factory=dict)  # formula -> (E_d, space group)
    round: int = 0
    message: str = "starting"
    notes: list[str] = field(default_factory=list)  # for the user, in the order in which they came up
    until: float = math.inf  # time limit, of `time.monotonic`

    @property
    def done(self) -> int:
        """Candidates stored."""
        return sum(self.counts.values())

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the rate since this start, or what the time limit leaves; None if neither is known."""
        fresh, limit = self.done - self.resumed, max(0.0, self.until - time.monotonic())
        if fresh <= 0:
            return limit if math.isfinite(limit) else None
        return min(limit, max(0, self.expected - self.done) * (time.monotonic() - self.began) / fresh)

    @property
    def share(self) -> float:
        """Of the candidates or of the time, whichever ends the search first."""
        spent = time.monotonic() - self.began
        by_time = spent / (self.until - self.began) if math.isfinite(self.until) else 0.0
        return min(1.0, max(by_time, self.done / max(1, self.expected)))

    def add(self, row: Shown) -> None:
        """Count one stored candidate."""
        self.counts[f"{row.role} {row.status}"] += 1
        if row.reason:
            self.reasons[row.reason] += 1
        e_d = row.e_d_judge if self.judged else row.e_d
        if e_d is None or row.status != Status.RELAXED:
            return
        if e_d < self.best.get(row.formula, (math.inf, None))[0]:
            self.best[row.formula] = (e_d, row.space_group)


@contextmanager
def shown(console: Console, run: RunPath) -> Iterator[Callable[[Progress], None]]:
    """Function that shows progress in the way that suits the console."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            tell = _notes(live.console)

            def update(progress: Progress) -> None:
                tell(progress)
                live.update(panel(progress, run))

            yield update
    else:
        yield _lines(console)


def _notes(console: Console) -> Callable[[Progress], None]:
    """Function that prints notes not printed before."""
    told = 0

    def tell(progress: Progress) -> None:
        nonlocal told
        for note in progress.notes[told:]:
            console.print(note, soft_wrap=True)
        told = len(progress.notes)

    return tell


def _lines(console: Console) -> Callable[[Progress], None]:
    last, message, tell = 0.0, "", _notes(console)

    def report(progress: Progress) -> None:
        nonlocal last, message
        tell(progress)
        if time.monotonic() - last < SECONDS_BETWEEN_LINES and progress.message == message:
            return
        last, message = time.monotonic(), progress.message
        console.print(line(progress))

    return report


def line(progress: Progress) -> str:
    """Progress in one line."""
    counts = progress.counts
    best = min(progress.best.items(), key=lambda item: item[1][0], default=None)
    elapsed, filled = clock(time.monotonic() - progress.began), counts[f"{Role.FROM_HOST} {Status.RELAXED}"]
    parts = [
        f"[{elapsed}] {progress.message}: {progress.done}/{progress.expected} candidates",
        f"{counts[f'{Role.NEW} {Status.RELAXED}'] + filled} relaxed ({filled} from hosts)",
        *([", ".join(f"{n} {reason}" for reason, n in progress.reasons.most_common(3))] if progress.reasons else []),
        *([f"best {best[0]} {best[1][1]} {1e3 * best[1][0]:+.1f} meV/atom"] if best else []),
        *(
            [f"about {clock(progress.seconds_left)} left"]
            if progress.seconds_left is not None and progress.message == "running"
            else []
        ),
    ]
    return "; ".join(parts)


def panel(progress: Progress, run: RunPath) -> Group:
    """Progress bar, counts by role and status, and the best E_d of each composition."""
    funnel = Table("role", *Status, box=None)
    for role in Role:
        funnel.add_row(role, *(str(progress.counts[f"{role} {status}"]) for status in Status))
    best = Table("formula", "best E_d meV/atom", "space group", box=None)
    for formula, (e_d, group) in sorted(progress.best.items(), key=lambda item: item[1][0])[:SHOWN_FORMULAS]:
        best.add_row(formula, f"{1e3 * e_d:+.1f}", group or "")
    bar = Table.grid()
    bar.add_row(ProgressBar(total=1.0, completed=progress.share, width=60))
    left = "" if progress.seconds_left is None else f", about {clock(progress.seconds_left)} left"
    reasons = ", ".join(f"{n} {reason}" for reason, n in progress.reasons.most_common(5))
    return Group(
        Text(
            f"{progress.message}, round {progress.round + 1}: {progress.done} of {progress.expected} candidates, "
            f"{clock(time.monotonic() - progress.began)}{left}; stop with Ctrl-C, results stay in {run}"
        ),
        bar,
        funnel,
        Text(f"not relaxed: {reasons}" if reasons else ""),
        best,
    )


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
