"""`hostguide screen`: fill many hosts with many ions, and tell voltages, capacities and what becomes of the hosts."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from search.commands.common import INTERRUPTED, JsonOption, console, number, print_json, require_elements
from search.storage.paths import beside, require_lasting, run_path

if TYPE_CHECKING:
    from search.electrodes.curves import Electrode
    from search.electrodes.driver import ScreenProgress
    from search.electrodes.hosts import Host
    from search.storage.paths import RunPath

SECONDS_BETWEEN_LINES = 15.0
ROWS_SHOWN = 25


def screen(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="Crystal files, folders of them, Parquet tables, known phases (mp-25210), or a .yaml file"),
    ] = None,
    guest: Annotated[list[str] | None, typer.Option(help="Ion; may be given several times")] = None,
    systems: Annotated[
        str | None, typer.Option("--hosts", help="Known phases of these elements: V-O,Mn-O,*-P-O")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Folder or address (default: runs/<name>); resumed if it exists")
    ] = None,
    extract: Annotated[
        bool, typer.Option("--extract", help="The hosts hold the ion already: take it out, and try it as given too")
    ] = False,
    barriers: Annotated[
        bool, typer.Option("--barriers", help="Also compute the barrier of each easiest path; minutes per host")
    ] = False,
    contents: Annotated[int | None, typer.Option(min=1, help="Numbers of guests from empty to full")] = None,
    max_atoms: Annotated[int | None, typer.Option(min=1, help="Of a host as given")] = None,
    judge: Annotated[str | None, typer.Option(help="A second potential that computes the voltages too")] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto or ray://… (default: this machine)")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only list the hosts; compute nothing")] = False,
    as_json: JsonOption = False,
) -> None:
    """Screen hosts as electrodes. Rerun the same command to resume a screen that was stopped or killed.

    docs/electrodes.md explains the configuration file and the results.
    """
    from search.electrodes.config import check_screen, load_screen
    from search.electrodes.curves import electrodes_of
    from search.electrodes.driver import plan_tasks, run_screen
    from search.electrodes.hosts import find_hosts
    from search.electrodes.output import write_electrodes
    from search.electrodes.store import load_rows

    require_elements("--guest", guest or [])
    files = list(hosts or [])
    yaml = [name for name in files if name.endswith((".yaml", ".yml"))]
    if len(yaml) > 1:
        raise ValueError(f"give one configuration, not {', '.join(yaml)}")
    content: dict[str, Any] = load_screen(Path(yaml[0])).model_dump(mode="json", exclude_unset=True) if yaml else {}
    given = content.setdefault("hosts", {})
    given["files"] = [*given.get("files", []), *(name for name in files if name not in yaml)]
    given["systems"] = [*given.get("systems", []), *((systems or "").split(",") if systems else [])]
    options = {"guests": guest or None, "extract": extract or None, "contents": contents, "judge": judge}
    content |= {name: value for name, value in options.items() if value is not None}
    if barriers and not content.get("barriers"):
        content["barriers"] = {}
    if max_atoms is not None:
        given["max_atoms"] = max_atoms
    if address is not None:
        content["resources"] = {**content.get("resources", {}), "address": address}
    if not content.get("guests"):
        raise ValueError("no ion is given: add --guest Li, or guests in the configuration file")
    config = check_screen(content, source=yaml[0] if yaml else "the options")
    if check:
        found = find_hosts(config.hosts)
        if as_json:
            print_json("screen", _plan(found, len(plan_tasks(config, found))))
        else:
            _list(found, len(config.guests))
        return
    place = run_path(run or Path("runs") / config.name)
    require_lasting(place)
    tasks = plan_tasks(config, find_hosts(config.hosts))
    console.print(f"{len(tasks)} pairs of host and ion; results go to {place}", soft_wrap=True)
    progress = run_screen(config, place, report=_lines())
    stopped = progress.stored < progress.total
    if stopped:
        done = f"{progress.stored} of {progress.total} pairs are stored"
        console.print(f"Stopped; {done}. Resume with the same command.", soft_wrap=True)
    frame = load_rows(place) if progress.stored else None
    electrodes = [] if frame is None else electrodes_of(frame)
    if as_json:
        print_json("screen", _result(place, progress, electrodes))
    if stopped or frame is None:
        raise typer.Exit(INTERRUPTED)
    if not as_json:
        _show(electrodes)
    for path in write_electrodes(electrodes, frame, beside(place)):
        console.print(str(path), soft_wrap=True)
    console.print(f"A page with all of it: hostguide report {shlex.quote(str(place))}", soft_wrap=True)


def _plan(hosts: list[Host], pairs: int) -> dict[str, Any]:
    """Fields of the record of a screen that has not begun."""
    found = [
        {
            "name": host.name,
            "source": host.source,
            "formula": host.crystal.formula if host.crystal else None,
            "atoms": len(host.crystal) if host.crystal else None,
            "problem": host.problem,
        }
        for host in hosts
    ]
    return {"run": None, "pairs": pairs, "stored": 0, "hosts": found, "electrodes": []}


def _result(place: RunPath, progress: ScreenProgress, electrodes: list[Electrode]) -> dict[str, Any]:
    """Fields of the record of a screen that has ended or was stopped."""
    found = [
        {**asdict(one), "steps": [{"start": a, "end": b, "voltage": v} for a, b, v in one.steps]} for one in electrodes
    ]
    pairs, stored = progress.total, progress.stored
    return {"run": str(place), "pairs": pairs, "stored": stored, "hosts": [], "electrodes": found}


def _list(hosts: list[Host], ions: int) -> None:
    table = Table("host", "formula", "atoms", "source", title=f"{len(hosts)} hosts, {ions} ions")
    for host in hosts[:ROWS_SHOWN]:
        formula = host.crystal.formula if host.crystal else host.problem
        table.add_row(host.name, formula, str(len(host.crystal)) if host.crystal else "", host.source)
    console.print(table)
    if len(hosts) > ROWS_SHOWN:
        console.print(f"and {len(hosts) - ROWS_SHOWN} more")


def _lines() -> Callable[[ScreenProgress], None]:
    """A line now and then, and every note once."""
    last, told = 0.0, 0

    def report(progress: ScreenProgress) -> None:
        nonlocal last, told
        for note in progress.notes[told:]:
            console.print(note, soft_wrap=True)
        told = len(progress.notes)
        if time.monotonic() - last < SECONDS_BETWEEN_LINES and progress.stored < progress.total:
            return
        last = time.monotonic()
        left = progress.seconds_left
        about = f"; at least {left / 60:.0f} min left" if left and progress.stored < progress.total else ""
        counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(progress.rows.items()))
        console.print(
            f"{progress.stored} of {progress.total} pairs; contents: {counts or 'none yet'}{about}", soft_wrap=True
        )

    return report


def _show(electrodes: list[Electrode]) -> None:
    found = [one for one in electrodes if one.status == "electrode"]
    table = Table(
        "host", "ion", "full", "V", "mAh/g", "Wh/kg", "volume %", "host kept", "E_d empty, full meV", "conversion V"
    )
    for one in found[:ROWS_SHOWN]:
        ends = [number(None if e is None else 1e3 * e, ".0f", "–") for e in (one.e_d_empty, one.e_d_full)]
        table.add_row(
            f"{one.host_formula} ({one.host})",
            one.guest,
            str(one.full_formula),
            number(one.average_voltage, ".2f"),
            number(one.capacity, ".0f"),
            number(one.energy, ".0f"),
            number(None if one.volume_change is None else 100 * one.volume_change, "+.1f"),
            "yes" if one.topotactic else f"no ({number(one.topotactic_voltage, '.2f', '–')} V kept)",
            ", ".join(ends),
            number(one.conversion_voltage, ".2f", "–"),
        )
    console.print(table)
    more = len(found) - ROWS_SHOWN
    if more > 0:
        console.print(f"and {more} more")
    reasons: dict[str, int] = {}
    for one in electrodes:
        if one.status != "electrode":
            reasons[one.status] = reasons.get(one.status, 0) + 1
    for reason, n in sorted(reasons.items(), key=lambda item: -item[1])[:8]:
        console.print(f"{n} without a voltage: {reason}", soft_wrap=True)
