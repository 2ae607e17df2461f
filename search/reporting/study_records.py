"""What commands that study crystals, hosts and methods print with `--json`; `records` has the others and the list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from search.reporting.record_base import Decomposition, Energy, Formula, Group, Products, Record, about


class Surrounding(Record):
    """How often an element has a coordination."""

    element: str
    neighbours: str
    coordination: int
    found: float = about("share of its atoms")
    known: float | None = about("the same in the known phases")


class Void(Record):
    """A void of the host."""

    fractional: list[float]
    radius: float = about("Å")


class Hop(Record):
    """A hop of the guest between two sites."""

    crystal: str
    hop: int
    length: float = about("Å")
    multiplicity: int
    bottleneck_radius: float = about("Å")
    blocked: bool
    forward: float | None = about("barrier, eV")
    backward: float | None = about("barrier, eV")
    converged: bool | None


class Uptake(Record):
    """The best crystal of one guest content."""

    x: float = about("guests per formula of the host")
    formula: Formula
    space_group: Group
    e_d: Decomposition
    volume: float = about("Å³ per formula of the host")
    expansion: float | None = about("relative, from x = 0")
    volume_change: float | None = about("relative, on relaxation")
    host_kept: bool | None


class Voltage(Record):
    """A step of the voltage curve."""

    phases: list[str] = about("from and to")
    start: float = about("x at its beginning")
    end: float
    voltage: float = about("V")


class Analysed(Record):
    """What an analysis found."""

    folder: str = about("of tables and figures")
    coordination: list[Surrounding]
    voids: list[Void] = about("largest first", default=[])
    hops: list[Hop] = about("with --guest", default=[])
    uptake: list[Uptake] = about("with --host or --framework", default=[])
    voltages: list[Voltage] = about("likewise", default=[])


class Judgement(Record):
    """What one potential says of a crystal."""

    columns: ClassVar[Mapping[str, str]] = {"e_d_judge": "e_d"}

    e_d: Decomposition
    energy: Energy
    products: Products
    converged: bool
    reason: str = about("why the relaxation ended")
    missing: list[str] = about("stable phases that its hull lacks, so that e_d may be too low")


class Judged(Record):
    """A crystal by several potentials."""

    candidate: str = about("its name in the run, or in its file")
    formula: Formula
    space_group: Group
    e_d: Decomposition
    spread: float | None = about("highest less lowest e_d of search and judges, eV/atom")
    disagree: bool = about("whether some call it stable and others do not")
    judges: dict[str, Judgement] = about("by name of the potential")


class ScreenHost(Record):
    """A host that a screen would fill."""

    name: str
    source: str = about("file, table or library")
    formula: str | None
    atoms: int | None = about("as given")
    problem: str = about("why it cannot be read; else empty")


class Plateau(Record):
    """A step of a voltage curve."""

    start: float = about("guests per formula of the host at its beginning")
    end: float
    voltage: float = about("V")


class HostWithIon(Record):
    """A host and an ion; voltages are against the ion's element."""

    host: str
    source: str = about("file, table or library")
    guest: str
    status: str = about("electrode, or why there is no voltage")
    charge: int | None = about("of the ion")
    host_formula: str | None
    full_formula: str | None
    x: float | None = about("guests per formula of the host when full")
    average_voltage: float | None = about("V, from empty to full")
    topotactic_voltage: float | None = about("V, of the arrangements that kept their host")
    judge_voltage: float | None = about("V, by the second potential")
    conversion_voltage: float | None = about("V, if the stable phases of the full composition formed instead")
    inserts: bool | None = about("whether insertion is what the hull allows")
    capacity: float | None = about("mAh/g of the full host")
    volumetric_capacity: float | None = about("mAh/cm³")
    energy: float | None = about("Wh/kg")
    volumetric_energy: float | None = about("Wh/l")
    volume_change: float | None = about("relative, from empty to full")
    topotactic: bool | None = about("whether the host is kept in every content on the hull")
    collapsed: bool | None = about("whether the empty host is no longer the framework that was given")
    e_d_empty: Decomposition
    e_d_full: Decomposition
    coordination: str | None = about("shells of the guests")
    percolates: int | None = about("dimensions in which the guests' sites are connected")
    hop: float | None = about("length of the easiest hop, Å")
    bottleneck: float | None = about("its radius, Å")
    direction: str | None = about("of the easiest path")
    barrier: float | None = about("of the easiest path, eV")
    steps: list[Plateau] = about("the voltage curve")
    seconds: float = about("CPU time")


class Screened(Record):
    """What a screen found, or with `--check` what it would fill."""

    run: str | None = about("its folder or address; null with --check")
    pairs: int = about("of host and ion")
    stored: int = about("of them so far; fewer than pairs: it was stopped, and the same command resumes it")
    hosts: list[ScreenHost] = about("with --check only")
    electrodes: list[HostWithIon] = about("highest energy density first, those without a voltage last")


Figures = dict[str, float | None]  # name -> number; null where nothing was measured


class MethodFigures(Record):
    """How often one method puts guests back; docs/training.md explains the figures."""

    summary: Figures = about("means over the guest elements")
    guests: dict[str, Figures] = about("by guest element")
    bins: dict[str, Figures] = about("by size, guest content and others")


class Reconstructed(Record):
    """How often guests are put back."""

    cases: int = about("crystals")
    hosts_compared: bool = about("whether it is known which hosts are new")
    methods: dict[str, MethodFigures]


class FoundShares(Record):
    """How many of the targets whose crystal is known were found, and the shares of them."""

    targets: int = about("whose crystal is known")
    found_any: float | None = about("found at all")
    top1: float | None = about("found as the crystal of lowest energy")
    top5: float | None = about("among the five lowest")
    as_low: float | None = about("something was found that is as low in energy")
    space_group_top1: float | None = about("the lowest has the known space group")
    space_group_top5: float | None = about("one of the five lowest has")
    median_seconds_to_find: float | None = about("CPU seconds")
    generators: dict[str, int] = about("targets that each generator found")


class Predicted(Record):
    """Which targets were found from the atoms of their cells."""

    summary: FoundShares


class VoltageErrors(Record):
    """Differences of voltages from known ones, V."""

    mae: float | None = about("mean of their sizes")
    median: float | None = about("of their sizes")
    bias: float | None = about("mean")


class PairErrors(VoltageErrors):
    """The same of some pairs of host and ion."""

    pairs: int
    corrected: VoltageErrors = about("after the correction that is fitted to the other pairs")


class VoltageSummary(PairErrors):
    """The same of all pairs, and what they consist of."""

    failed: int = about("pairs without a voltage")
    known: int = about("pairs whose filled crystal is known")
    potential: VoltageErrors = about("error of the potential, of those")
    sites: VoltageErrors = about("error of the sites, of those")
    sites_found: float | None = about("share whose sites were found, or lower ones")
    seconds_median: float | None = about("CPU seconds of a pair")


class VoltagesCompared(Record):
    """Voltages of known hosts against those of a table."""

    summary: VoltageSummary
    by_split: dict[str, PairErrors]
    by_ion: dict[str, PairErrors]
    by_metal: dict[str, PairErrors]
    by_anion: dict[str, PairErrors]
    correction: dict[str, float] = about("constant, and one number for each metal of the host, V")
