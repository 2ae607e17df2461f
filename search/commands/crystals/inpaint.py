"""`hostguide inpaint`: place guests into a host, or order its partially occupied sites; writes a table and CIFs."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from search.commands.common import (
    JsonOption,
    SeedOption,
    WeightsOption,
    console,
    print_json,
    require_elements,
    say_warnings,
    use_threads,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from model.generation.disorder import Disordered
    from model.stages import Relaxer
    from search.studies.inpaint import Filled, Region

SECONDS_BETWEEN_LINES = 10.0


def inpaint(
    host: Annotated[Path, typer.Argument(help="Host crystal: CIF, POSCAR or other file, or a known phase: mp-149")],
    guest: Annotated[list[str] | None, typer.Option(help="Guest element; may be given several times")] = None,
    count: Annotated[
        list[str] | None,
        typer.Option(help="Atoms per cell of each guest, in the same order; 0:4 compares 0 to 4 atoms of one guest"),
    ] = None,
    supercell: Annotated[tuple[int, int, int], typer.Option(help="Multiples of the cell along a, b and c")] = (1, 1, 1),
    region: Annotated[
        str | None,
        typer.Option(help="LOW:HIGH, fractions of c: host atoms in between are placed again, together with the guests"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Arrangements to try")] = 8,
    refine: Annotated[
        int, typer.Option(min=0, help="Rounds of refinement, in which guests of the best arrangements are placed again")
    ] = 0,
    seed: SeedOption = 0,
    fix_host: Annotated[
        bool, typer.Option("--fix-host", help="Relax only the guests; host and cell stay fixed")
    ] = False,
    weights: WeightsOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the CIFs (default: <host>-<guests>)", file_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Insert guest atoms into a host, relax, and rank by energy. Without guests: order partially occupied sites."""
    from search.storage.crystal_files import read_structure

    use_threads()
    contents = _contents(count or [])
    guests = _guests(guest or [], [contents[-1]] if contents else [_number(one) for one in count or []])
    if contents and (region is not None or fix_host):
        raise ValueError("--count with a range compares relaxed hosts: leave out --region and --fix-host")
    ordering = not guests and region is None
    if ordering and refine:
        raise ValueError(f"--refine {refine} places guests again: give them with --guest and --count, or --region")
    if min(supercell) < 1:
        raise ValueError(f"--supercell needs three numbers of at least 1, got {' '.join(map(str, supercell))}")
    read = read_structure(host)
    say_warnings(read)
    if read.fixed is not None:
        lost = "" if fix_host else "; --fix-host keeps the whole host in place"
        console.print(f"{host}: inpaint does not keep the {read.fixed.sum()} atoms fixed that the file fixes{lost}.")
    structure = read.structure * list(supercell)
    _check_elements(structure, guests)
    if ordering:
        if structure.is_ordered:
            raise ValueError(f"{host} has no partially occupied sites: give --guest and --count")
        folder = out or Path(f"{host.stem}-ordered")
        filled, dropped = _order(structure, samples=samples, seed=seed, fix_host=fix_host)
    elif contents:
        (element,) = guests
        folder = out or Path(f"{host.stem}-{element}{contents[0]}-{contents[-1]}")
        rows, dropped = _sweep(
            structure, element, contents, rounds=refine, samples=samples, seed=seed, weights=weights, out=folder
        )
        _show(rows, dropped, folder, as_json=as_json, by_content=True)
        return
    else:
        folder = out or Path(f"{host.stem}-{''.join(f'{element}{n}' for element, n in guests.items()) or 'region'}")
        filled, dropped = _fill(
            structure,
            guests,
            region=region,
            rounds=refine,
            samples=samples,
            seed=seed,
            fix_host=fix_host,
            weights=weights,
            out=folder,
        )
    alone = None if ordering or region or fix_host or len(guests) != 1 else next(iter(guests))
    _show(_rows(structure, alone, filled, dropped, folder), dropped, folder, as_json=as_json)


def _rows(
    structure: Structure, guest: str | None, filled: list[Filled], dropped: Sequence[str], out: Path
) -> list[dict[str, Any]]:
    """Write the arrangements, and compare them with the empty host if one kind of guest was inserted into it.

    Raises:
        ValueError: there is none.
    """
    from model.crystals.crystal import Crystal
    from search.studies.inpaint_output import row_of, write_all
    from search.studies.insertion import NOT_INSERTED, EmptyHost

    _require_some(filled, dropped)
    empty = EmptyHost.of(Crystal.from_pymatgen(structure), guest, _relaxer(False)) if guest else None
    return [
        {
            "rank": rank,
            **row_of(one, path, filled[0], structure.volume),
            **(empty.columns(one) if empty else NOT_INSERTED),
        }
        for rank, (one, path) in enumerate(zip(filled, write_all(filled, out), strict=True), start=1)
    ]


def _require_some(filled: object, dropped: Sequence[str]) -> None:
    if not filled:
        raise ValueError(
            f"no arrangement survived screening and relaxation ({', '.join(sorted(set(dropped)))}); "
            "try fewer guests or more --samples"
        )


def _sweep(
    structure: Structure, guest: str, contents: range, *, out: Path, **options: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Fill the host with several numbers of guests; a row for the lowest arrangement of each, and what was dropped.

    All arrangements of a content are written to a folder of its own.
    """
    from model.crystals.crystal import Crystal
    from search.studies.inpaint import make_templates
    from search.studies.inpaint_output import row_of, write_all
    from search.studies.insertion import EmptyHost

    host = Crystal.from_pymatgen(structure)
    if guest in host.symbols:
        raise ValueError(f"the host {host.formula} contains {guest} already: take it out, or give one --count")
    make_templates(host, {guest: contents[-1]}, samples=1, seed=0)  # raises if there is no room
    empty = EmptyHost.of(host, guest, _relaxer(False))
    if empty is None:
        raise ValueError(f"{host.formula} does not relax without guests, so there is no voltage: give one --count")
    lowest: dict[int, Filled] = {}
    rows: list[dict[str, Any]] = []
    all_dropped: list[str] = []
    for number in contents:
        filled, dropped = [empty.filled], list[str]()
        if number:
            folder = out / f"{guest}{number}"
            filled, dropped = _fill(structure, {guest: number}, region=None, fix_host=False, out=folder, **options)
        all_dropped += dropped
        if filled:
            lowest[number] = filled[0]
            path, *_ = write_all(filled, out / f"{guest}{number}")
            rows.append({"rank": 1, **row_of(filled[0], path, filled[0], structure.volume), **empty.columns(filled[0])})
    _require_some(any(lowest), all_dropped)
    steps = empty.step_voltages(lowest)
    return [{**row, "step_voltage": steps.get(row["guests"])} for row in rows], all_dropped


def _contents(counts: Sequence[str]) -> range | None:
    """The numbers of guests that a range such as 0:4 means; None if no range is given.

    Raises:
        ValueError: it is not LOW:HIGH, or not alone.
    """
    if not any(":" in one for one in counts):
        return None
    match = re.fullmatch(r"(\d+):(\d+)", counts[0])
    if match is None or len(counts) > 1 or int(match[1]) >= int(match[2]):
        raise ValueError(f"--count takes one range LOW:HIGH such as 0:4, for one guest; got {' '.join(counts)}")
    return range(int(match[1]), int(match[2]) + 1)


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise ValueError(f"--count {text!r} is no number of atoms: give 1 or more, or a range such as 0:4")
    return int(text)


def _guests(elements: Sequence[str], counts: Sequence[int]) -> dict[str, int]:
    """Element -> count, from the repeated options."""
    if len(elements) != len(counts):
        raise ValueError(
            f"--guest was given {len(elements)} times and --count {len(counts)} times; each guest needs a count"
        )
    repeated = sorted({element for element in elements if elements.count(element) > 1})
    if repeated:
        raise ValueError(
            f"--guest {', '.join(repeated)} was given more than once; give each guest once, with its count"
        )
    return dict(zip(elements, counts, strict=True))


def _check_elements(structure: Structure, guests: Mapping[str, int]) -> None:
    from model.potentials.catalog import DEFAULT, require_known

    require_elements("--guest", guests)
    require_known(DEFAULT, {*guests, *structure.composition.get_el_amt_dict()})


def _fill(
    structure: Structure,
    guests: Mapping[str, int],
    *,
    region: str | None,
    rounds: int,
    samples: int,
    seed: int,
    fix_host: bool,
    weights: str | None,
    out: Path,
) -> tuple[list[Filled], list[str]]:
    """Fill the host; returns arrangements, lowest energy first, and the reasons why others were dropped."""
    from model.crystals.crystal import Crystal
    from model.stages import CrystalMaker
    from search.studies.inpaint import fill, make_templates, polish_fillings, refine_fillings
    from search.studies.inpaint_output import write_all

    host = Crystal.from_pymatgen(structure)
    templates = make_templates(host, guests, samples=samples, seed=seed, region=_region(region) if region else None)
    placed = Counter(compress(templates[0].crystal.symbols, templates[0].guest))
    console.print(
        f"{host.formula} with {len(host)} atoms; "
        f"placing {', '.join(f'{n} {element}' for element, n in placed.items())}, {samples} times"
        f"{f'; rounds of refinement: {rounds}' if rounds else ''}"
    )
    relaxer = _relaxer(fix_host)
    maker = CrystalMaker(weights)
    with _progress(samples * (1 + rounds)) as report:
        filled, dropped = fill(templates, maker, relaxer, free_guests_only=fix_host, report=report)
        for number in range(1, rounds + 1 if filled else 0):
            write_all(filled, out)  # so that the results are kept if a later round is interrupted
            filled, more = refine_fillings(
                filled,
                maker,
                relaxer,
                samples=samples,
                seed=(seed, number),
                free_guests_only=fix_host,
                report=report,
            )
            dropped += more
        filled, repeated = polish_fillings(filled, relaxer, free_guests_only=fix_host)
    return filled, dropped + repeated


def _order(structure: Structure, *, samples: int, seed: int, fix_host: bool) -> tuple[list[Filled], list[str]]:
    """Order the sites; returns arrangements, lowest energy first, and the reasons why others were dropped."""
    from model.generation.disorder import Disordered
    from search.studies.inpaint import fill_sites, polish_fillings

    disordered = Disordered.from_pymatgen(structure)
    console.print(_what_is_ordered(disordered))
    relaxer = _relaxer(fix_host)
    with _progress(samples) as report:
        filled, dropped = fill_sites(
            disordered, relaxer, samples=samples, seed=seed, free_guests_only=fix_host, report=report
        )
        filled, repeated = polish_fillings(filled, relaxer, free_guests_only=fix_host)
    return filled, dropped + repeated


def _region(text: str) -> Region:
    from search.studies.inpaint import Region

    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise ValueError(f"--region needs two fractions of c, for example 0.4:0.6, got {text!r}") from None
    return Region(low, high)


def _what_is_ordered(disordered: Disordered) -> str:
    """Description of the sites to order.

    Raises:
        ValueError: the cell contains less than half an atom of some element.
    """
    from ase.data import chemical_symbols

    atoms = {chemical_symbols[z]: n for z, n in disordered.counts().items()}
    lost = [f"{n:.2f} {element}" for element, n in disordered.occupancy.items() if element not in atoms]
    if lost:
        raise ValueError(
            f"the cell contains {' and '.join(lost)}, which rounds to zero atoms: give a larger --supercell, for "
            "example 1 1 3"
        )
    rounded = [
        f"{n} {element} for {disordered.occupancy[element]:.2f}"
        for element, n in atoms.items()
        if abs(disordered.occupancy[element] - n) > 0.05
    ]
    text = (
        f"{disordered.free.sum()} partially occupied sites; {disordered.arrangements():,} arrangements of "
        f"{''.join(f'{element}{n}' for element, n in atoms.items())}, including equivalent and overlapping ones"
    )
    return text + (f". Counts are rounded ({', '.join(rounded)}): a larger --supercell is closer" if rounded else "")


def _relaxer(fix_host: bool) -> Relaxer:
    from model.crystals.screening import ScreenSettings
    from model.potentials.catalog import DEFAULT
    from model.relaxation.relax import RelaxSettings
    from model.stages import Relaxer

    return Relaxer(DEFAULT, RelaxSettings(cell="fixed" if fix_host else "full"), ScreenSettings())


@contextmanager
def _progress(samples: int) -> Iterator[Callable[[str, int], None]]:
    """Progress bars in a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield _lines(samples)
        return
    with Progress(console=console, transient=True) as bar:
        tasks = {stage: bar.add_task(stage, total=samples) for stage in ("placed", "relaxed")}
        yield lambda stage, n: bar.advance(tasks[stage], n)


def _lines(samples: int) -> Callable[[str, int], None]:
    began = last = time.monotonic()
    done = {"placed": 0, "relaxed": 0}

    def report(stage: str, n: int) -> None:
        nonlocal last
        done[stage] += n
        if time.monotonic() - last < SECONDS_BETWEEN_LINES and done["relaxed"] < samples:
            return
        last = time.monotonic()
        console.print(f"[{last - began:.0f} s] {done['placed']} of {samples} placed, {done['relaxed']} relaxed")

    return report


def _show(
    rows: list[dict[str, Any]], dropped: Sequence[str], out: Path, *, as_json: bool, by_content: bool = False
) -> None:
    """Print a table, or JSON, and where the files are."""
    from search.studies.inpaint_output import sweep_table_of, table_of

    if as_json:
        print_json("inpaint", rows)
    else:
        console.print(sweep_table_of(rows) if by_content else table_of(rows))
    files = (
        f"CIFs of each content, lowest energy first: the folders in {out}"
        if by_content
        else f"CIFs of these {len(rows)} crystals: {out}"
    )
    console.print(files, soft_wrap=True)
    if dropped:
        console.print(f"{len(dropped)} dropped: {', '.join(sorted(set(dropped)))}")
