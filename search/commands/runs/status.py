"""`hostguide status`: what a search does, from another terminal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from search.commands.common import JsonOption, RunArgument, console, print_json
from search.commands.runs.results import show_best
from search.storage.paths import run_path


def status(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of crystals to show")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show whether a search runs, how far it is, what it has found, and how long it still takes."""
    from search.storage.ranking import rank
    from search.storage.results import load_results
    from search.storage.status import read_status

    place = run_path(run)
    if not (place / "config.yaml").exists():
        raise ValueError(f"{run} is not a run: it has no config.yaml; a search makes it when it starts")
    try:
        frame = load_results(place, structures=False)
    except ValueError:  # nothing is stored yet
        frame = None
    best = None if frame is None else rank(frame, top=top)
    found = read_status(place, frame)
    if as_json:
        crystals = [] if best is None else best.assign(rank=range(1, len(best) + 1)).to_dict("records")
        print_json("status", {**found, "best": crystals})
        return
    for line in lines(found):
        console.print(line, soft_wrap=True)
    if best is not None and not best.empty:
        show_best(best, place, cif=None)


def lines(found: dict[str, Any]) -> list[str]:
    """What a person reads of a status."""
    of = "" if found["expected"] is None else f" of at most {found['expected']}"
    doing = f", {found['doing']}" if found["doing"] not in ("", "running") else ""
    left = "" if found["minutes_left"] is None else f"; about {found['minutes_left']:.0f} minutes left"
    counts = ", ".join(f"{count} {name}" for name, count in found["statuses"].items())
    text = [
        f"{found['run']}: {found['state']}{doing}, round {found['round'] or 1}, {found['candidates']}{of} candidates"
        f"{f' ({counts})' if counts else ''}{left}"
    ]
    if found["state"] == "running":
        steps = (f"{step} {one['busy']} busy, {one['waiting']} waiting" for step, one in found["actors"].items())
        text.append(f"{found['process']}; {'; '.join(steps)}")
    if found["state"] in ("stopped", "killed"):
        text.append(f"Resume with: hostguide search {found['run']}")
    return text + list(found["notes"][-3:])
