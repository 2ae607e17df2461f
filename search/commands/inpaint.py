"""`hostguide inpaint` as a person sees it: progress, table, files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from pymatgen.io.cif import CifWriter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.generation.disorder import Disordered
from model.relaxation.relax import RelaxSettings
from model.stages import Generator, Relaxer
from search.storage.crystal_files import read_structure
from search.studies.inpaint import Filled, Region, fill, fill_sites, make_templates, refine

SECONDS_BETWEEN_LINES = 10.0


def inpaint_host(
    console: Console,
    host_file: Path,
    guests: Mapping[str, int],
    *,
    samples: int,
    seed: int,
    fix_host: bool,
    weights: str | None,
    out: Path,
    supercell: Sequence[int] = (1, 1, 1),
    region: str | None = None,
    rounds: int = 0,
) -> None:
    """Put guests into the host of a file and write what comes out, lowest energy first.

    Args:
        console: where progress and the table go.
        host_file: the host.
        guests: element -> count.
        samples: arrangements to try, and the same again in every round of refinement.
        seed: decides everything.
        fix_host: relax the guests only.
        weights: score model: ``small``, ``base`` or a file; small when left out.
        out: folder of the CIFs.
        supercell: cells of the host along a, b and c.
        region: ``low:high``, fractions of c between which the host's atoms are guests too.
        rounds: of refinement, see `refine`.

    Raises:
        ValueError: bad input, or not one arrangement survived.
    """
    torch.set_num_threads(1)
    structure = read_structure(host_file) * _checked(supercell)
    host = Crystal.from_pymatgen(structure)
    templates = make_templates(host, guests, samples=samples, seed=seed, region=_region(region) if region else None)
    placed = Counter(np.array(templates[0].crystal.symbols)[templates[0].guest].tolist())
    console.print(
        f"{host.formula} with {len(host)} atoms; "
        f"placing {', '.join(f'{n} {element}' for element, n in placed.items())}, {samples} times"
        f"{f'; rounds of refinement: {rounds}' if rounds else ''}"
    )
    relaxer = _relaxer(fix_host)
    generator = Generator(weights)
    with _progress(console, samples * (1 + rounds)) as report:
        filled, dropped = fill(templates, generator, relaxer, free_guests_only=fix_host, report=report)
        for number in range(1, rounds + 1 if filled else 0):
            _write_all(filled, out)  # a later round that is stopped takes nothing away
            filled, more = refine(
                filled,
                generator,
                relaxer,
                samples=samples,
                seed=(seed, number),
                free_guests_only=fix_host,
                report=report,
            )
            dropped += more
    _show(console, filled, dropped, out, host.volume)


def _region(text: str) -> Region:
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise ValueError(f"--region needs two fractions of c, for example 0.4:0.6, got {text!r}") from None
    return Region(low, high)


def order_host(
    console: Console,
    host_file: Path,
    *,
    samples: int,
    seed: int,
    fix_host: bool,
    out: Path,
    supercell: Sequence[int] = (1, 1, 1),
) -> None:
    """Order the partially occupied sites of a file's crystal and write the best arrangements.

    Raises:
        ValueError: bad input, or not one arrangement survived.
    """
    torch.set_num_threads(1)
    structure = read_structure(host_file) * _checked(supercell)
    if structure.is_ordered:
        raise ValueError(f"every site of {host_file} is full: say what to put in with --guest and --count")
    disordered = Disordered.from_pymatgen(structure)
    console.print(_what_is_ordered(disordered))
    with _progress(console, samples) as report:
        filled, dropped = fill_sites(
            disordered, _relaxer(fix_host), samples=samples, seed=seed, free_guests_only=fix_host, report=report
        )
    _show(console, filled, dropped, out, structure.volume)


def _checked(supercell: Sequence[int]) -> list[int]:
    if min(supercell) < 1:
        raise ValueError(f"--supercell needs three numbers of at least 1, got {' '.join(map(str, supercell))}")
    return list(supercell)


def _what_is_ordered(disordered: Disordered) -> str:
    """In words.

    Raises:
        ValueError: an element of the crystal does not come up to one atom.
    """
    atoms = {chemical_symbols[z]: n for z, n in disordered.counts().items()}
    lost = [f"{n:.2f} {element}" for element, n in disordered.occupancy.items() if element not in atoms]
    if lost:
        raise ValueError(
            f"the cell holds {' and '.join(lost)}, which round to none: give a larger --supercell, for example 1 1 3"
        )
    rounded = [
        f"{n} {element} for {disordered.occupancy[element]:.2f}"
        for element, n in atoms.items()
        if abs(disordered.occupancy[element] - n) > 0.05
    ]
    text = (
        f"{disordered.free.sum()} partially occupied sites; {disordered.arrangements():,} arrangements of "
        f"{''.join(f'{element}{n}' for element, n in atoms.items())}, symmetry and overlaps aside"
    )
    return text + (f". Counts are rounded ({', '.join(rounded)}): a --supercell comes closer" if rounded else "")


def _relaxer(fix_host: bool) -> Relaxer:
    return Relaxer("chgnet-0.3.0", RelaxSettings(cell="fixed" if fix_host else "full"), ScreenSettings())


@contextmanager
def _progress(console: Console, samples: int) -> Iterator[Callable[[str, int], None]]:
    """Bars on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield _lines(console, samples)
        return
    with Progress(console=console, transient=True) as bar:
        tasks = {stage: bar.add_task(stage, total=samples) for stage in ("placed", "relaxed")}
        yield lambda stage, n: bar.advance(tasks[stage], n)


def _lines(console: Console, samples: int) -> Callable[[str, int], None]:
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


def _show(console: Console, filled: list[Filled], dropped: list[str], out: Path, volume: float) -> None:
    """Table and files; the volume is that of the host as given, in Å³."""
    if not filled:
        raise ValueError(
            f"no arrangement survived screening and relaxation ({', '.join(sorted(set(dropped)))}); "
            "try fewer guests or more --samples"
        )
    paths = _write_all(filled, out)
    console.print(_table(filled, paths, volume))
    console.print(f"CIFs of these {len(paths)} crystals: {out}", soft_wrap=True)
    if dropped:
        console.print(f"{len(dropped)} dropped: {', '.join(sorted(set(dropped)))}")


def _write_all(filled: list[Filled], out: Path) -> list[Path]:
    """CIFs of all, in the place of those that were there."""
    for old in out.glob("[0-9]*_*_+*meV.cif"):
        old.unlink()
    return [_write(one, position, filled[0], out) for position, one in enumerate(filled, start=1)]


def _write(one: Filled, position: int, best: Filled, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    above = 1e3 * (one.relaxation.energy_final - best.relaxation.energy_final)
    group = one.space_group.replace("/", "_")
    path = out / f"{position:02d}_{one.crystal.formula}_{group}_{above:+.0f}meV.cif"
    CifWriter(one.crystal.to_pymatgen()).write_file(path)  # every atom where it is, no symmetry imposed
    return path


def _table(filled: list[Filled], paths: list[Path], volume: float) -> Table:
    best = filled[0].relaxation.energy_final
    table = Table("#", "E eV/atom", "above best meV/atom", "space group", "max force eV/Å", "volume change %", "file")
    for position, (one, path) in enumerate(zip(filled, paths, strict=True), start=1):
        energy = one.relaxation.energy_final
        change = 100 * (one.crystal.volume / volume - 1)
        table.add_row(
            str(position),
            f"{energy:.4f}",
            f"{1e3 * (energy - best):.1f}",
            one.space_group,
            f"{one.relaxation.max_force:.3f}",
            f"{change:+.1f}",
            path.name,
        )
    return table
