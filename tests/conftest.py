"""What tests of several files share: one thread, real crystals, and one task that went through all its stages."""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.diffusion.checkpoint import build_network, save_network
from model.diffusion.network import NetworkConfig
from model.relaxation.relax import Relaxation
from model.stages import Analyser, Made, Rejected
from model.thermodynamics.reference import packaged_reference
from search.cli import main
from search.config import SearchConfig
from search.config_file import check_config
from search.planning.campaign import Campaign
from search.planning.round_plan import plan_round
from search.reporting.records import schema
from search.running.pipeline import Provenance, task_rows
from search.storage.results import ResultStore
from search.storage.rows import Status, StoredCrystal
from tests.support.crystals import rattled

torch.set_num_threads(1)
if "HOSTGUIDE_CACHE" not in os.environ:  # not the user's own
    os.environ["HOSTGUIDE_CACHE"] = tempfile.mkdtemp(prefix="hostguide-tests-")
    atexit.register(shutil.rmtree, os.environ["HOSTGUIDE_CACHE"], ignore_errors=True)
os.environ.setdefault("RAY_worker_niceness", "0")  # by default workers give way to all else


@pytest.fixture(scope="session")
def licoo2() -> Crystal:
    """Layered R-3m LiCoO2, primitive cell."""
    structure = Structure.from_spacegroup(
        "R-3m", Lattice.hexagonal(2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]
    )
    return Crystal.from_pymatgen(structure.get_primitive_structure())


@pytest.fixture(scope="session")
def lisi() -> Crystal:
    """A B2-like LiSi: not the ground state, but small and symmetric."""
    return Crystal(np.eye(3) * 3.1, [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 14])


@pytest.fixture(scope="session")
def make_config() -> Callable[..., SearchConfig]:
    """A function that makes a small Li-Si search; keyword arguments replace whole sections."""

    def made(**sections: Any) -> SearchConfig:
        content = {"name": "test", "compositions": {"system": "Li-Si", "max_atoms": 4}, **sections}
        content["frameworks"] = {"known": 0, **sections.get("frameworks", {})}  # tests bring their own hosts
        return check_config(content, source="test")

    return made


@pytest.fixture(scope="session")
def relaxation() -> Callable[..., Relaxation]:
    """A function that says of a crystal what a relaxation says, without one."""

    def relaxed(crystal: Crystal, *, energy: float, reason: str = "converged") -> Relaxation:
        return Relaxation(
            initial=crystal,
            final=crystal,
            energy_initial=energy + 0.1,
            energy_final=energy,
            forces_final=np.zeros((len(crystal), 3)),
            max_force_initial=1.0,
            max_force=0.05,
            pressure=0.1,
            steps=7,
            converged=reason == "converged",
            reason=reason,
        )

    return relaxed


@pytest.fixture(scope="session")
def cobaltate(make_config, licoo2, relaxation) -> dict[str, Any]:
    """Six LiCoO2 candidates of one real task: two relaxed (the second better), two alike, one unconverged, two dropped.

    Returns config, task and rows; everything but generation and relaxation is done by the real code.
    """
    config = make_config(
        compositions={"formulas": ["LiCoO2"], "max_atoms": 4},
        frameworks={"guests": ["Li"]},
        generators=["diffusion", "inpainting"],
        policy={"candidates_per_round": 10, "new_share": 0.6, "samples": 3, "batch": 6},
    )
    campaign = Campaign(config, lambda cell: 8.0)
    task = plan_round(campaign, 0, campaign.history())[0]
    wide = licoo2.replace(lattice=licoo2.lattice * 1.06)
    crystals = [rattled(licoo2, seed, width=0.03) for seed in range(5)] + [wide]
    outcomes = [
        relaxation(crystals[0], energy=-5.895),
        relaxation(crystals[1], energy=-5.90),
        relaxation(wide, energy=-5.70, reason="step_limit"),
        Rejected("too_close"),
        Rejected("duplicate", 4),
        relaxation(wide, energy=np.nan, reason="nan"),
    ]
    analyser = Analyser(
        packaged_reference(), config.compositions.elements, ["Li"], config.frameworks.tolerances, ScreenSettings()
    )
    analysed = analyser.analyse(outcomes, [[]] * len(outcomes))
    made = [Made(crystal=one, evaluations=31, score_model="test-00000000", seconds=0.5) for one in crystals]
    rows = task_rows(task, made, outcomes, analysed, Provenance("chgnet-0.3.0", "packaged"))
    return {"config": config, "task": task, "rows": rows}


@pytest.fixture(scope="session")
def host_file(tmp_path_factory) -> Path:
    """A CIF of layered CoO2: LiCoO2 without its lithium, primitive cell of three atoms."""
    structure = Structure.from_spacegroup(
        "R-3m", Lattice.hexagonal(2.816, 14.05), ["Co", "O"], [[0, 0, 0], [0, 0, 0.2605]]
    )
    path = tmp_path_factory.mktemp("host") / "CoO2.cif"
    structure.get_primitive_structure().to(path, fmt="cif")
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """An untrained score model: places guests nearly at random, but always in the same way."""
    config = NetworkConfig(multiplicities=(4, 2), layers=1, radial_hidden=4, node_hidden=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_network(network.state_dict(), {"network": config.model_dump(mode="json")}, path)
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the command line as a shell would: exit code, standard output, standard error."""

    def called(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hostguide", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


@pytest.fixture
def printed(call: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """A function that runs a command with --json and returns what it printed, checked against its schema."""

    def checked(command: str, *arguments: Any, code: int = 0) -> Any:
        exit_code, out, err = call(*command.split(), *arguments, "--json")
        assert exit_code == code, err
        found = json.loads(out)
        jsonschema.validate(found, schema(command), format_checker=jsonschema.FormatChecker())
        return found

    return checked


@pytest.fixture
def small_run(tmp_path: Path, cobaltate: dict[str, Any], lisi: Crystal) -> Path:
    """A small Li-Si run: two relaxed crystals, one of them from a host, and a rejected one."""
    config = check_config({"name": "small", "compositions": {"system": "Li-Si"}}, source="test")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    moved = lisi.replace(fractional=lisi.fractional + np.array([0.0, 0.0, 0.02]) * (lisi.numbers == 3)[:, None])
    first = replace(
        cobaltate["rows"][0],
        candidate="first",
        formula="LiSi",
        n_atoms=len(lisi),
        initial=StoredCrystal.of(moved),
        final=StoredCrystal.of(lisi),
        e_d=0.02,
        products={"Si": 1.0},
        space_group="R-3m",
        space_group_number=166,
        frameworks=[],
    )
    second = replace(
        first,
        candidate="second",
        role="from_host",
        parent="first",
        final=StoredCrystal.of(lisi.replace(lattice=1.2 * lisi.lattice)),
        e_d=0.05,
        energy=-3.0,
        energy_initial=-2.9,
        space_group=None,
        space_group_number=None,
        framework_space_group="Fd-3m",
    )
    third = replace(first, candidate="third", e_d=None, status=Status.REJECTED, reason="too_close", final=None)
    rows = [first, second, third]
    ResultStore(tmp_path).append("task", rows)
    return tmp_path
