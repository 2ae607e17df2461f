"""Rows of a screen whose voltages are known, and an actor that makes such rows without computing anything."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from model.crystals.crystal import Crystal
from search.electrodes.config import ScreenConfig
from search.electrodes.rows import ElectrodeRow, Outcome
from search.electrodes.screener import ScreenTask
from search.storage.rows import StoredCrystal

METAL = -2.0  # eV, energy of an atom of the ion's element
HOST = Crystal(np.diag([2.8, 2.8, 5.0]), [[0, 0, 0], [0.5, 0.5, 0.2], [0.5, 0.5, 0.8]], [27, 8, 8])
FILLED = HOST.join(Crystal(HOST.lattice, [[0, 0, 0.5]], [3])).replace(lattice=HOST.lattice * 1.02)
TWICE = FILLED.join(Crystal(HOST.lattice, [[0.5, 0, 0.5]], [3]))


def rows_of_host(volts: tuple[float, ...] = (4.0, 1.0), **changes: Any) -> list[ElectrodeRow]:
    """CoO2 with 0, 1, 2 Li per formula unit, whose steps have these voltages."""
    base: dict[str, Any] = {
        "task": "t",
        "host": "CoO2",
        "source": "a.cif",
        "guest": "Li",
        "charge": 1,
        "host_formula": "CoO2",
        "units": 1.0,
        "most": 2,
        "potential": "chgnet-0.3.0",
        "guest_energy": METAL,
        "host_kept": True,
        "e_d": 0.01,
        "seconds": 2.0,
    } | changes
    rows, total = [], -21.0
    for count, crystal in enumerate([HOST, FILLED, TWICE][: len(volts) + 1]):
        total += METAL - volts[count - 1] if count else 0.0
        energy = total / len(crystal)
        rows.append(
            ElectrodeRow(
                **base,
                count=count,
                x=float(count),
                status=Outcome.FILLED if count else Outcome.EMPTY,
                reason="",
                final=StoredCrystal.of(crystal),
                n_atoms=len(crystal),
                energy=energy,
                topotactic_energy=energy + 0.1 if count else None,
                conversion_voltage=volts[0] + 0.5 if count else None,
                volume=crystal.volume,
            )
        )
    return rows


class SimulatedScreener:
    """Answers after a moment; a host called ``killer`` ends the process, ``faulty`` raises."""

    def __init__(self, config: ScreenConfig) -> None:
        self.config = config

    def ready(self) -> str:
        """Called by the pool."""
        return type(self).__name__

    def screen(self, task: ScreenTask) -> list[ElectrodeRow]:
        """Rows that depend on the task alone."""
        if task.crystal is None:
            return [
                ElectrodeRow(
                    task=task.identity,
                    host=task.host,
                    source=task.source,
                    guest=task.guest,
                    status=Outcome.FAILED,
                    reason=f"unreadable: {task.problem}",
                    potential=self.config.potential,
                )
            ]
        if task.host.startswith("killer"):
            os._exit(1)
        if task.host.startswith("faulty"):
            raise RuntimeError("this host fails")
        time.sleep(0.02)
        volts = tuple(np.random.default_rng(task.seed).uniform(0.5, 4.5, 2))
        return rows_of_host(
            volts, task=task.identity, host=task.host, source=task.source, guest=task.guest, seconds=time.process_time()
        )


def main() -> None:
    """Run a screen of simulated hosts: arguments are the folder of the hosts and that of the run."""
    import sys
    from pathlib import Path

    from search.electrodes.config import check_screen
    from search.electrodes.driver import run_screen

    content = {"hosts": {"files": [sys.argv[1]]}, "guests": ["Li", "Mg"], "resources": {"relax_actors": 2}}
    done = run_screen(check_screen(content, source="test"), Path(sys.argv[2]), actor=SimulatedScreener)
    print(done.stored, done.total)


if __name__ == "__main__":
    main()
