"""`hostguide judge`: crystals relaxed with other potentials, each against its own hull."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from search.commands.common import (
    DeviceOption,
    JsonOption,
    ThreadsOption,
    console,
    counted,
    device_of,
    number,
    potentials_of,
    print_json,
    say_warnings,
    use_threads,
)
from search.storage.paths import is_run, run_path

if TYPE_CHECKING:
    from search.storage.judgements import Verdict
    from search.storage.paths import RunPath
    from search.studies.panel import Defendant


def judge(
    source: Annotated[list[str], typer.Argument(help="A run, or crystal files and known phases: mp-149")],
    judges: Annotated[
        list[str],
        typer.Option(
            "--with",
            help="A potential that judges: a name, or a calculator as in docs/judges.md; may be given several times",
            callback=potentials_of,
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Run only: number of crystals of lowest E_d")] = 20,
    as_json: JsonOption = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
) -> None:
    """Relax crystals with other potentials and compare E_d, each by the potential's own hull."""
    from search.storage.judgements import FILE, store_judgements, verdicts
    from search.studies.panel import check_judges, take_panel

    use_threads(threads)
    run, defendants = _defendants(source, top)
    check_judges(judges, defendants)
    with counted() as report:
        rows = take_panel(defendants, judges, device=device_of(device), report=report)
    if run is not None:
        store_judgements(run, rows)
    found = verdicts(rows)
    if as_json:
        print_json("judge", [one.record for one in found])
        return
    console.print(_table(found))
    for line in _remarks(found):
        console.print(line, soft_wrap=True)
    if run is not None:
        console.print(f"Stored in {run / FILE}; `hostguide report` and `hostguide results` show it.", soft_wrap=True)


def _defendants(source: Sequence[str], top: int) -> tuple[RunPath | None, list[Defendant]]:
    """The crystals, and the run that they are of."""
    from search.storage.crystal_files import read_files
    from search.studies.panel import of_files, of_run

    places = [run_path(one) for one in source]
    runs = [place for place in places if is_run(place)]
    if runs and len(places) > 1:
        raise ValueError(f"give one run or crystal files, not {' and '.join(source)}")
    if runs:
        return runs[0], of_run(runs[0], top=top)
    read = read_files([place for place in places if isinstance(place, Path)])
    say_warnings(*read.crystals)
    for one in read.unreadable:
        console.print(f"{one.name}: {one.problem}", soft_wrap=True)
    return None, of_files(read.crystals)


def _table(found: Sequence[Verdict]) -> Table:
    names = list(found[0].judges)
    searched = {row.potential for one in found for row in one.judges.values() if row.potential}
    table = Table(title="Decomposition energies, meV/atom", title_justify="left")
    for name in ("formula", "space group"):
        table.add_column(name)
    for name in (*sorted(searched), *names, "spread"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("")
    table.add_column("crystal", overflow="fold")
    for one in found:
        by_search = [_milli(one.e_d)] if searched else []
        by_judges = [_milli(row.e_d_judge) for row in one.judges.values()]
        remark = "disagree" if one.disagree else ""
        table.add_row(
            one.formula, one.space_group or "", *by_search, *by_judges, _milli(one.spread), remark, one.candidate
        )
    return table


def _milli(value: float | None) -> str:
    return number(None if value is None else 1e3 * value, ".1f", "–")


def _remarks(found: Sequence[Verdict]) -> list[str]:
    """What a reader should know besides the numbers."""
    apart = sum(one.disagree for one in found)
    lines = [f"{apart} of {len(found)}: some potentials call it stable, others do not."]
    rows = [row for one in found for row in one.judges.values()]
    for row in rows:
        if not row.converged:
            lines.append(f"{row.candidate}: the relaxation with {row.judge} did not converge ({row.reason}).")
    for judge, missing in dict.fromkeys((row.judge, tuple(row.missing)) for row in rows if row.missing):
        lines.append(
            f"No crystal of {', '.join(missing)} is known to the library: the hull of {judge} lacks it, so E_d near it "
            "may be too low."
        )
    return lines
