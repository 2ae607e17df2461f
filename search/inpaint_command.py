"""`hostguide inpaint` as a person sees it: progress, table, files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pymatgen.io.cif import CifWriter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.relax import RelaxSettings
from model.screen import ScreenSettings
from model.stages import Generator, Relaxer
from search.inpaint import Filled, fill, make_blanks, read_host


def inpaint_host(
    console: Console,
    host_file: Path,
    guests: Mapping[str, int],
    *,
    samples: int,
    seed: int,
    fix_host: bool,
    weights: Path | None,
    out: Path,
) -> None:
    """Put guests into the host of a file and write what comes out, lowest energy first.

    Raises:
        ValueError: bad input, or not one arrangement survived.
    """
    torch.set_num_threads(1)
    host = read_host(host_file)
    blanks = make_blanks(host, guests, samples=samples, seed=seed)
    console.print(
        f"{host.formula} with {len(host)} atoms; "
        f"placing {', '.join(f'{n} {element}' for element, n in guests.items())}, {samples} times"
    )
    relaxation = RelaxSettings(cell="fixed" if fix_host else "full")
    relaxer = Relaxer("chgnet-0.3.0", relaxation, ScreenSettings())
    generator = Generator(str(weights) if weights else None)
    with Progress(console=console, transient=True) as bar:
        tasks = {stage: bar.add_task(stage, total=samples) for stage in ("placed", "relaxed")}
        filled, dropped = fill(
            blanks, generator, relaxer, free_guests_only=fix_host, report=lambda stage, n: bar.advance(tasks[stage], n)
        )
    if not filled:
        raise ValueError(
            f"no arrangement survived screening and relaxation ({', '.join(sorted(set(dropped)))}); "
            "try fewer guests or more --samples"
        )
    for old in out.glob("[0-9][0-9]_*_+*meV.cif"):
        old.unlink()
    paths = [_write(one, position, filled[0], out) for position, one in enumerate(filled, start=1)]
    console.print(_table(filled, paths))
    console.print(f"CIFs of these {len(paths)} crystals: {out}", soft_wrap=True)
    if dropped:
        console.print(f"{len(dropped)} dropped: {', '.join(sorted(set(dropped)))}")


def _write(one: Filled, position: int, best: Filled, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    above = 1e3 * (one.relaxation.energy_final - best.relaxation.energy_final)
    group = one.space_group.replace("/", "_")
    path = out / f"{position:02d}_{one.crystal.formula}_{group}_{above:+.0f}meV.cif"
    CifWriter(one.crystal.to_pymatgen()).write_file(path)  # every atom where it is, no symmetry imposed
    return path


def _table(filled: list[Filled], paths: list[Path]) -> Table:
    best = filled[0].relaxation.energy_final
    table = Table("#", "E eV/atom", "above best meV/atom", "space group", "max force eV/Å", "volume change %", "file")
    for position, (one, path) in enumerate(zip(filled, paths, strict=True), start=1):
        energy = one.relaxation.energy_final
        change = 100 * (one.crystal.volume / one.relaxation.initial.volume - 1)
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
