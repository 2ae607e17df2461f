"""`hostguide inpaint`: place guests into a host, or order its partially occupied sites; writes a table and CIFs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

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
    count: Annotated[list[int] | None, typer.Option(help="Atoms per cell of each guest, in the same order")] = None,
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
    guests = _guests(guest or [], count or [])
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
    inserted = _inserted(structure, alone, filled)
    _show(filled, dropped, folder, structure.volume, inserted, as_json=as_json)


def _inserted(structure: Structure, guest: str | None, filled: Sequence[Filled]) -> list[dict[str, Any]]:
    """Voltage, insertion energy and others of each arrangement; empty where it is no insertion of one kind of guest."""
    from model.crystals.crystal import Crystal
    from search.studies.insertion import NOT_INSERTED, EmptyHost

    empty = EmptyHost.of(Crystal.from_pymatgen(structure), guest, _relaxer(False)) if guest and filled else None
    return [empty.columns(one) if empty else dict(NOT_INSERTED) for one in filled]


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
            _write_all(filled, out)  # so that the results are kept if a later round is interrupted
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
    filled: list[Filled],
    dropped: list[str],
    out: Path,
    volume: float,
    inserted: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
) -> None:
    """Print a table and write files; ``volume`` is that of the host as given, in Å³, ``inserted`` of `_inserted`."""
    if not filled:
        raise ValueError(
            f"no arrangement survived screening and relaxation ({', '.join(sorted(set(dropped)))}); "
            "try fewer guests or more --samples"
        )
    paths = _write_all(filled, out)
    all_of_each = enumerate(zip(filled, paths, inserted, strict=True), start=1)
    rows = [_row(one, path, filled[0], volume) | {"rank": rank, **more} for rank, (one, path, more) in all_of_each]
    if as_json:
        print_json("inpaint", rows)
    else:
        console.print(_table(rows))
    console.print(f"CIFs of these {len(paths)} crystals: {out}", soft_wrap=True)
    if dropped:
        console.print(f"{len(dropped)} dropped: {', '.join(sorted(set(dropped)))}")


def _write_all(filled: list[Filled], out: Path) -> list[Path]:
    """Write CIFs of all arrangements; CIFs of an earlier call are removed."""
    for old in out.glob("[0-9]*_*_+*meV.cif"):
        old.unlink()
    return [_write(one, position, filled[0], out) for position, one in enumerate(filled, start=1)]


def _write(one: Filled, position: int, best: Filled, out: Path) -> Path:
    from pymatgen.io.cif import CifWriter

    out.mkdir(parents=True, exist_ok=True)
    above = 1e3 * (one.relaxation.energy_final - best.relaxation.energy_final)
    group = one.space_group.replace("/", "_")
    path = out / f"{position:02d}_{one.crystal.formula}_{group}_{above:+.0f}meV.cif"
    CifWriter(one.crystal.to_pymatgen()).write_file(path)  # all atoms unchanged, no symmetry imposed
    return path


def _row(one: Filled, path: Path, best: Filled, volume: float) -> dict[str, Any]:
    """What is said of an arrangement; ``volume`` is that of the host as given, in Å³."""
    energy = one.relaxation.energy_final
    return {
        "formula": one.crystal.formula,
        "atoms": len(one.crystal),
        "energy": energy,
        "above_best": energy - best.relaxation.energy_final,
        "space_group": one.space_group,
        "max_force": one.relaxation.max_force,
        "volume_change_percent": 100 * (one.crystal.volume / volume - 1),
        "file": str(path),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("#", "E eV/atom", "above best meV/atom", "space group", "max force eV/Å", "volume change %", "file")
    if is_insertion := rows[0]["voltage"] is not None:
        table = Table(
            "#", "E eV/atom", "above best meV/atom", "space group", "V", "host kept", "volume change %", "file"
        )
    for row in rows:
        inserted = (f"{row['voltage']:.2f}", "yes" if row["host_kept"] else "no") if is_insertion else ()
        table.add_row(
            str(row["rank"]),
            f"{row['energy']:.4f}",
            f"{1e3 * row['above_best']:.1f}",
            row["space_group"],
            *(inserted or (f"{row['max_force']:.3f}",)),
            f"{row['volume_change_from_empty_percent' if is_insertion else 'volume_change_percent']:+.1f}",
            Path(row["file"]).name,
        )
    return table
