"""What a file from somebody else can do: nothing that is loaded is code, and nothing is written outside a run."""

import ast
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from model.diffusion.train import TrainConfig
from model.generators.registry import GENERATORS
from search.config import SearchConfig
from search.config_file import check_config
from search.dft.inputs import jobs_of_run
from search.planning.prepare import load_reference, same_search, write_run_metadata
from search.reporting.export import FORMATS, export
from search.running.pipeline import load_stages, search_here
from search.storage.cif import write_cifs
from search.storage.results import ResultStore, load_results

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "actors", "search", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# They run, or may run, what they load.
LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle", "eval", "exec"}
CALLS |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def dangers(tree):
    """(line, what) of imports and calls by which a file could run code when it is loaded."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] in LOADERS)
        elif isinstance(node, ast.ImportFrom):
            names = {node.module.split(".")[-1], *(name.name for name in node.names)}
            yield from ((node.lineno, name) for name in sorted(names & LOADERS))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            true = {key.arg for key in node.keywords if getattr(key.value, "value", None) is True}
            if (called in CALLS and "weights_only" not in true) or "allow_pickle" in true:
                yield node.lineno, called


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from ray import cloudpickle",
        "def f():\n    import joblib",
        "torch.load(path)",
        "eval(text)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "read(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
    ],
)
def test_a_danger_is_seen(text):
    assert list(dangers(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    ["torch.load(path, weights_only=True)", "yaml.safe_load(text)", "network.eval()", "read(allow_pickle=False)"],
)
def test_what_is_harmless_is_not_taken_for_one(text):
    assert not list(dangers(ast.parse(text)))


def test_nothing_that_is_loaded_is_code_but_for_the_one_thing_that_is_documented():
    found = {
        str(path.relative_to(ROOT)): [what for _, what in dangers(ast.parse(path.read_text(encoding="utf-8")))]
        for path in SOURCES
    }
    assert len(SOURCES) > 60
    own = "benchmarks/driver.py"  # packs and unpacks its own objects, as Ray does, to know what that costs
    reference = "model/thermodynamics/entries.py"
    assert {name: what for name, what in found.items() if what} == {reference: ["pickle"], own: ["pickle"]}
    assert (ROOT / reference).read_text().count("pickle.load") == 1
    driver = (ROOT / own).read_text()
    assert driver.count("pickle.load") == driver.count("pickle.loads(content)") == 2
    assert driver.count("content = pickle.dumps(") == 2
    assert "allow_pickle" in (ROOT / "docs" / "configuration.md").read_text()


class Trap:
    """Does something when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_pickle_in_a_configuration_is_not_opened_unless_it_says_so(tmp_path, monkeypatch, make_config):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phases.json").write_bytes(pickle.dumps(Trap()))
    reference = {"kind": "file", "path": "phases.json", "potential": "chgnet-0.3.0"}
    with pytest.raises(ValueError, match="runs whatever code its author put into it"):
        load_reference(make_config(reference=reference))
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(AttributeError):  # the trap is real: it springs, and what it gives back is no reference
        load_reference(make_config(reference={**reference, "allow_pickle": True}))
    assert (tmp_path / "sprung").exists()


# --- where things are written -------------------------------------------------------------------------------------

# Every text of a configuration, by what it is: a place, which is read and never written, or a word.
# A new field must be sorted in here.
PLACES = {
    SearchConfig: {"frameworks.files", "reference.path", "models.weights"},
    TrainConfig: {"data.path", "data.held_out"},
}
WORDS = {
    SearchConfig: {
        "name",
        "compositions.system",
        "compositions.composition_order",
        "compositions.fractions",
        "compositions.formulas",
        "compositions.cells",
        "compositions.families",
        "compositions.valences",
        "compositions.terminals",
        "lattices.bravais",
        "frameworks.guests",
        "library.without_systems",
        "library.without_formulas",
        "reference.potential",
        "models.potential",
        "models.potential.calculator",  # only what makes an ASE calculator is called
        "models.potential.arguments",
        "models.potential.name",
        "judge.potential",
        "judge.potential.calculator",
        "judge.potential.arguments",
        "judge.potential.name",
        "resources.address",
        "generators",
        "sampling",
        "tuning.sampling",
        "tuning.relaxation",
    },
    TrainConfig: {"data.split", "data.guests", "network.edge", "network.hidden", "network.auxiliary", "network.node"},
}


def texts(group, before=""):
    """Names of the fields of a settings class, and of those in it, that may hold any text."""
    for name, field in group.model_fields.items():
        where, kinds = f"{before}{name}", list(flattened(field.annotation))
        inside = [(where, kind) for kind in kinds]
        if where == "sampling":  # what is in it, the generators say
            inside += [(f"{where}.{row.name}", kind) for row in GENERATORS.values() for kind in flattened(row.settings)]
        for place, kind in inside:
            if hasattr(kind, "model_fields"):
                yield from texts(kind, f"{place}.")
        if str in kinds or Path in kinds:
            yield where


def flattened(kind):
    """A type and all types that it is made of; of the words of a Literal none."""
    inside = get_args(kind)
    if not inside:
        yield kind
    for part in inside:
        if isinstance(part, type) or get_args(part):
            yield from flattened(part)


@pytest.mark.parametrize("settings", [SearchConfig, TrainConfig])
def test_every_place_that_a_configuration_can_name_is_known(settings):
    assert set(texts(settings)) == PLACES[settings] | WORDS[settings]


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/b", "..", "a\\b", "", "~"])
def test_the_name_of_a_search_leads_nowhere(name):
    with pytest.raises(ValueError, match=r"letters, digits and \. _ - only"):
        check_config({"name": name, "compositions": {"system": "Li-Si"}}, source="test")


def everything(folder):
    """Content and time of change of all files below."""
    return {path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in folder.rglob("*")}


def test_a_search_writes_to_its_run_and_nowhere_else(tmp_path, monkeypatch, make_config, tiny_weights, host_file):
    outside, here = tmp_path / "outside", tmp_path / "here"
    for folder in (outside, here):
        folder.mkdir()
    weights = outside / "tiny.safetensors"
    for source in (tiny_weights, tiny_weights.with_suffix(".yaml")):
        (outside / source.name.replace(tiny_weights.stem, "tiny")).write_bytes(source.read_bytes())
    (outside / "host.cif").write_bytes(host_file.read_bytes())
    monkeypatch.chdir(here)
    config = make_config(
        compositions={"cells": [{"Li": 1, "Co": 1, "O": 2}]},
        frameworks={"guests": ["Li"], "files": [str(outside / "host.cif")]},
        models={"weights": str(weights)},
        sampling={"diffusion": {"kind": "heun", "steps": 2}, "inpainting": {"kind": "heun", "steps": 2}},
        relaxation={"max_steps": 1},
        policy={"rounds": 1, "candidates_per_round": 2, "samples": 1, "batch": 1},
    )
    before, reference, run = everything(outside), load_reference(config), here / "run"
    run.mkdir()
    same_search(run, config, reference)
    write_run_metadata(run, config, reference)
    for _ in search_here(config, reference, ResultStore(run), load_stages(config, reference)):
        pass
    assert len(load_results(run)) == 2
    assert everything(outside) == before
    assert [path.name for path in here.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", [*FORMATS, "best", "dft"])
def test_results_of_somebody_else_cannot_name_a_place(tmp_path, cobaltate, kind):
    row = replace(cobaltate["rows"][0], candidate="../../../evil", space_group="../..", formula="../Li")
    ResultStore(tmp_path / "run").append("task", [row])
    frame, out = load_results(tmp_path / "run", structures=False), tmp_path / "a" / "b" / "c" / "out"
    if kind == "dft":
        (job,) = jobs_of_run(tmp_path / "run", top=1)
        assert np.isin(list("/\\"), list(job.name)).sum() == 0
        return
    written = write_cifs(frame, out) if kind == "best" else export(frame, kind, out)
    assert {path.resolve().parent for path in written} == {out.resolve()}
    assert not list(tmp_path.rglob("*evil")) and not list((tmp_path / "a").glob("*.*"))
