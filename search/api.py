"""Five calls for scripts and notebooks: `evaluate`, `relax`, `inpaint`, `run_search` and `load_results`.

These names, their arguments and the fields of what they return are kept from version to version; the rest of the
package may change. Crystals go in as pymatgen Structures, ASE Atoms or paths of files, one or several. They come out as
what they went in as; files come out as Structures. Energies are in eV/atom.

>>> from pymatgen.core import Lattice, Structure
>>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
>>> found = relax(salt.get_primitive_structure(), progress=False)
>>> found.space_group, found.converged, bool(abs(found.e_d) < 0.01)
('Fm-3m', True, True)
"""

from __future__ import annotations

import glob
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
from ase import Atoms
from pymatgen.core import Structure
from tqdm import tqdm

from model.crystals.crystal import Crystal
from model.potentials.catalog import DEFAULT

if TYPE_CHECKING:
    from model.relaxation.coordinates import Cell
    from search.config import SearchConfig
    from search.reporting.run_view import Run
    from search.running.progress import Progress

Some: TypeAlias = Structure | Atoms | str | Path


@dataclass(frozen=True, eq=False, kw_only=True)
class Point:
    """A crystal with its energy.

    Attributes:
        structure: of the type that was given.
        formula: reduced.
        energy: eV/atom.
        e_d: decomposition energy, eV/atom; NaN if it is not known.
        products: what the crystal decomposes into -> fraction of the atoms.
        problem: why something is not known; otherwise empty.
    """

    structure: Structure | Atoms
    formula: str
    energy: float
    e_d: float
    products: dict[str, float]
    problem: str = ""

    def _repr_html_(self) -> str:
        from search.reporting.run_view import crystal_html

        e_d = "" if math.isnan(self.e_d) else f", E_d {1e3 * self.e_d:+.1f} meV/atom"
        return crystal_html(_crystal(self.structure)[0], f"{self.formula}, {self.energy:.4f} eV/atom{e_d}")


@dataclass(frozen=True, eq=False, kw_only=True)
class RelaxedCrystal(Point):
    """A relaxed crystal.

    Attributes:
        space_group: symbol; empty if none was found.
        converged: whether the forces fell below the threshold.
        reason: converged, or why not.
        max_force: eV/Å.
        steps: of the optimizer.
    """

    space_group: str = ""
    converged: bool = False
    reason: str = ""
    max_force: float = math.nan
    steps: int = 0
    forces: Any = field(default=None, repr=False)  # (n, 3) eV/Å


def evaluate(crystals: Some | Sequence[Some], *, potential: str = DEFAULT, device: str = "cpu") -> Any:
    """Energy and E_d of crystals as they are.

    Args:
        crystals: one, or several.
        potential: a name of the catalogue.
        device: ``cpu`` or ``cuda``.

    Returns:
        a `Point` for one crystal, a list of them for several.
    """
    from model.potentials.catalog import load_potential

    some = _several(crystals)
    read = [_crystal(one) for one in some]
    results = load_potential(potential, device=device).evaluate([crystal for crystal, _ in read])
    points = []
    for (crystal, back), result in zip(read, results, strict=True):
        energy = math.nan if result.problem else float(result.energy)
        points.append(Point(structure=back(crystal), **_about(crystal, energy, potential, result.problem)))
    return points if some is crystals else points[0]


def relax(
    crystals: Some | Sequence[Some],
    *,
    potential: str = DEFAULT,
    fmax: float = 0.05,
    cell: Cell = "full",
    keep_symmetry: bool = False,
    steps: int = 500,
    device: str = "cpu",
    progress: bool = True,
) -> Any:
    """Relax crystals, many at once.

    Args:
        crystals: one, or several.
        potential: a name of the catalogue.
        fmax: threshold for forces and scaled stress, eV/Å.
        cell: full, hydrostatic, fixed_volume or fixed.
        keep_symmetry: keep each crystal in its initial space group.
        steps: maximum number of steps.
        device: ``cpu`` or ``cuda``.
        progress: whether to show a bar.

    Returns:
        a `RelaxedCrystal` for one crystal, a list of them for several. One that fails has a reason; nothing is raised.
    """
    from model.potentials.catalog import load_potential
    from model.relaxation.relax import RelaxSettings
    from model.relaxation.relax import relax as relax_crystals

    some = _several(crystals)
    read = [_crystal(one) for one in some]
    settings = RelaxSettings(fmax=fmax, cell=cell, keep_symmetry=keep_symmetry, max_steps=steps)
    with _bar("relaxed", len(some), progress) as done:
        results = relax_crystals(
            [crystal for crystal, _ in read],
            load_potential(potential, device=device),
            settings,
            report=lambda index, result: done(1),
        )
    relaxed = [_relaxed(result, back, potential) for result, (_, back) in zip(results, read, strict=True)]
    return relaxed if some is crystals else relaxed[0]


def inpaint(
    host: Some,
    guests: Mapping[str, int],
    *,
    samples: int = 8,
    seed: int = 0,
    fix_host: bool = False,
    weights: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> list[RelaxedCrystal]:
    """Place guests into a host and relax it.

    Args:
        host: the crystal to fill.
        guests: element -> atoms in the host's cell.
        samples: arrangements to try.
        seed: of the random numbers.
        fix_host: keep host and cell as they are, and relax only the guests.
        weights: score model: small (default), base or a .safetensors file.
        device: of the score model: ``auto``, ``cpu`` or ``cuda``.
        progress: whether to show a bar.

    Returns:
        distinct arrangements, lowest energy first; none if no arrangement survived.

    Raises:
        ValueError: unknown guests, or more than there is room for.
    """
    from model.crystals.screening import ScreenSettings
    from model.potentials.catalog import require_known
    from model.relaxation.relax import RelaxSettings
    from model.stages import CrystalMaker, Relaxer
    from search.studies.inpaint import fill, make_templates, polish_fillings

    crystal, back = _crystal(host)
    templates = make_templates(crystal, guests, samples=samples, seed=seed)
    require_known(DEFAULT, {*guests, *crystal.symbols})
    relaxer = Relaxer(DEFAULT, RelaxSettings(cell="fixed" if fix_host else "full"), ScreenSettings())
    with _bar("relaxed", samples, progress) as done:
        filled, _ = fill(
            templates,
            CrystalMaker(weights, device),
            relaxer,
            free_guests_only=fix_host,
            report=lambda stage, count: done(count if stage == "relaxed" else 0),
        )
        filled, _ = polish_fillings(filled, relaxer, free_guests_only=fix_host)
    return [_relaxed(one.relaxation, back, DEFAULT) for one in filled]


def run_search(
    what: str | Path | Mapping[str, Any],
    *,
    guests: Sequence[str] = (),
    max_atoms: int | None = None,
    minutes: float | None = None,
    run: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Run a search, or resume it.

    Args:
        what: a chemical system (Li-Si), a formula (Li5Si2), a host (file), a configuration (YAML file or its content).
        guests, max_atoms: as for `hostguide search` without a configuration.
        minutes: time limit of this call.
        run: folder or address of the run (default: ``runs/<name>``).
        progress: whether to show a bar.

    Returns:
        the run; it shows itself in a notebook.

    Raises:
        ValueError: the question or the configuration is wrong, or the folder holds another search.
    """
    began = time.monotonic()
    from search.planning.prepare import load_reference
    from search.reporting.run_view import Run
    from search.running.driver import run_search as run_here
    from search.storage.paths import run_path

    config = _configuration(what, guests, max_atoms, minutes)
    folder = run_path(run if isinstance(run, str) else run or Path("runs") / config.name)
    until = math.inf if minutes is None else began + 60 * minutes
    with tqdm(total=config.candidates, disable=not progress, unit="candidate") as bar:

        def report(state: Progress) -> None:
            bar.n = state.done
            best = min(state.best.items(), key=lambda item: item[1][0], default=None)
            bar.set_postfix_str(state.message if best is None else f"{best[0]} {1e3 * best[1][0]:+.0f} meV/atom")

        run_here(config, folder, load_reference(config), report=report, until=until)
    return Run(folder)


def load_results(runs: str | Path | Sequence[str | Path], *, structures: bool = True) -> pd.DataFrame:
    """The candidates of one or several runs, lowest E_d first, see docs/results.md.

    Args:
        runs: folders or addresses of runs; folders may contain wildcards: ``runs/li-*``.
        structures: add the columns ``structure`` and ``structure_initial`` with pymatgen Structures.

    Returns:
        all columns of the results, and ``run``.

    Raises:
        ValueError: there is no such run, or it has no results.
    """
    from search.storage.results import load_results as load

    places = [runs] if isinstance(runs, str | Path) else list(runs)
    found = [str(path) for place in places for path in _matching(place)]
    once = {path if "://" in path else str(Path(path).resolve()): path for path in reversed(found)}
    frames = [load(path, structures=structures).assign(run=path) for path in once.values()]
    return pd.concat(frames, ignore_index=True).sort_values(["e_d", "run", "candidate"], ignore_index=True)


def _matching(place: str | Path) -> list[str | Path]:
    if not any(sign in str(place) for sign in "*?[") or "://" in str(place):
        return [place]
    paths = [path for path in sorted(glob.glob(str(place))) if (Path(path) / "candidates").is_dir()]
    if not paths:
        raise ValueError(f"no run matches {place}: a run is a folder that `hostguide search` has made")
    return list(paths)


def _configuration(
    what: str | Path | Mapping[str, Any], guests: Sequence[str], max_atoms: int | None, minutes: float | None
) -> SearchConfig:
    from search.config_file import check_config, load_config
    from search.questions import configuration

    if isinstance(what, Mapping):
        return check_config(dict(what), source="the configuration")
    if Path(what).suffix in (".yaml", ".yml"):
        return load_config(str(what))
    content = configuration(str(what), guests=guests, max_atoms=max_atoms, minutes=minutes)
    return check_config(content, source=str(what))


def _several(crystals: Some | Sequence[Some]) -> Sequence[Some]:
    return [crystals] if isinstance(crystals, Structure | Atoms | str | Path) else crystals


def _crystal(one: Some) -> tuple[Crystal, Callable[[Crystal], Structure | Atoms]]:
    """A crystal, and the function that gives crystals back in the same form."""
    from search.storage.crystal_files import read_crystal

    if isinstance(one, Atoms):
        return Crystal.from_ase(one), Crystal.to_ase
    if isinstance(one, Structure):
        return Crystal.from_pymatgen(one), Crystal.to_pymatgen
    return read_crystal(Path(one)).crystal, Crystal.to_pymatgen


def _about(crystal: Crystal, energy: float, potential: str, problem: str) -> dict[str, Any]:
    """Fields of a `Point`."""
    from search.reporting.record_base import shares
    from search.studies.crystal_stability import CrystalStability

    columns = CrystalStability(potential).columns(crystal, energy)
    return {
        "formula": crystal.formula,
        "energy": energy,
        "e_d": float(columns["e_d"]),
        "products": shares(columns["products"]),
        "problem": problem or columns["e_d_missing"],
    }


def _relaxed(result: Any, back: Callable[[Crystal], Structure | Atoms], potential: str) -> RelaxedCrystal:
    from model.relaxation.relax import may_be_ranked
    from model.symmetry.space_group import space_group

    known = may_be_ranked(result)
    group = space_group(result.final) if known else None
    energy = float(result.energy_final) if known else math.nan
    return RelaxedCrystal(
        structure=back(result.final),
        **_about(result.final, energy, potential, result.detail),
        space_group="" if group is None else group.symbol,
        converged=result.converged,
        reason=str(result.reason),
        max_force=float(result.max_force),
        steps=result.steps,
        forces=result.forces_final,
    )


@contextmanager
def _bar(what: str, total: int, progress: bool) -> Iterator[Callable[[int], Any]]:
    with tqdm(total=total, desc=what, disable=not progress) as bar:
        yield bar.update
