"""`hostguide reference relax` as a person sees it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from model.potentials.chgnet.potential import CHGNetPotential
from model.thermodynamics.reference_relaxation import MERGED, PhaseSettings, choose, relax_phases

LINES = 20  # between the start and the end, where there is no terminal


def relax_reference(
    console: Console,
    structures: Path,
    out: Path,
    *,
    within: float,
    first: str,
    max_atoms: int,
    potential: str,
    fmax: float,
    share: str,
    max_seconds: float,
    known: Path | None = None,
) -> None:
    """Relax the phases of a file near the hull and say what came of it."""
    torch.set_num_threads(1)
    part = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", share)
    if part is None or int(part[1]) > int(part[2]):
        raise ValueError(f"--share {share}: give k/n with k from 1 to n, for example 1/4")
    if fmax <= 0:
        raise ValueError(f"--fmax must be above 0, got {fmax}")
    relaxation = PhaseSettings().relaxation.model_copy(update={"fmax": fmax})
    settings = PhaseSettings(within=within, max_atoms=max_atoms, relaxation=relaxation)
    systems = [system for system in first.split(",") if system.strip()]
    phases = choose(structures, settings, first=systems, known=known)
    console.print(f"{len(phases)} phases of up to {phases['n_atoms'].max()} atoms within {within} eV/atom of the hull")
    model = CHGNetPotential(potential.removeprefix("chgnet-"))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("relaxed", total=None)
        said = -1

        def report(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and done * LINES // max(total, 1) > said:
                said = done * LINES // max(total, 1)
                console.print(f"{done} of {total}")

        stored = relax_phases(
            phases, out, model, settings, share=(int(part[1]), int(part[2])), max_seconds=max_seconds, report=report
        )
    converged = stored[stored["reason"] == "converged"]
    gain = 1e3 * (converged["energy_single_point"] - converged["energy_per_atom"]) if len(converged) else None
    console.print(f"{len(stored)} phases are in {out}; {len(converged)} converged", soft_wrap=True)
    if gain is not None:
        console.print(
            f"relaxing lowered their energy by {gain.mean():.1f} meV/atom on average, {gain.max():.1f} at most"
        )
    console.print(f"For `hostguide reference build --relaxed`: {out / MERGED}", soft_wrap=True)
