"""A new generator is one class and one row: it is configured, validated, tuned and searched with without more."""

import json

import numpy as np
import pytest
from pydantic import Field

from model.diffusion.sampler import Samples
from model.generators.diffusion import RandomLattice
from model.generators.registry import GENERATORS
from model.settings import Settings
from search.commands.validate import describe
from search.planning.prepare import load_reference
from search.running.pipeline import load_stages, search_here
from search.storage.results import ResultStore, load_results


class DiagonalSettings(Settings):
    """Atoms evenly spaced on the diagonal of the cell."""

    shift: float = Field(0.0, ge=0, le=1)  # of the first one, in fractions of the diagonal


class Diagonal(RandomLattice):
    """A toy."""

    name = "diagonal"
    first_guess = 0.2
    settings = DiagonalSettings
    default = DiagonalSettings()
    is_tunable = True

    def make(self, templates, settings, tools):
        made = []
        for template in templates:
            n = len(template.crystal)
            places = (np.arange(n) / n + settings.shift) % 1
            made.append(template.crystal.replace(fractional=np.repeat(places[:, None], 3, axis=1)))
        return Samples(made, 0)


@pytest.fixture
def config(monkeypatch, make_config, tiny_weights):
    monkeypatch.setitem(GENERATORS, "diagonal", Diagonal())
    return make_config(
        compositions={"cells": [{"Li": 1, "Si": 1}, {"Li": 2, "Si": 1}]},
        generators=["diagonal"],
        sampling={"diagonal": {"shift": 0.25}},
        relaxation={"max_steps": 3},
        policy={"rounds": 2, "candidates_per_round": 4, "batch": 4},
        models={"weights": str(tiny_weights)},
    )


def test_it_is_configured_and_described(config):
    assert config.sampling["diagonal"].shift == 0.25
    assert "generators: diagonal" in list(describe(config, load_reference(config)))


def test_it_makes_candidates_of_a_search(config, tmp_path):
    reference = load_reference(config)
    for _ in search_here(config, reference, ResultStore(tmp_path), load_stages(config, reference)):
        pass
    rows = load_results(tmp_path)
    assert len(rows) == 8
    assert set(rows["generator"]) == {"diagonal"} and set(rows["role"]) == {"new"}
    assert {json.loads(text)["shift"] for text in rows["generator_settings"]} == {0.25}
    assert rows["e_d"].notna().any()
    first = rows["structure_initial"].iloc[0]
    assert np.allclose(first.frac_coords[0], 0.25)


def test_its_settings_are_tuned(monkeypatch, make_config):
    monkeypatch.setitem(GENERATORS, "diagonal", Diagonal())
    config = make_config(generators=["diagonal"], tuning={"sampling": {"diagonal": {"shift": [0.1, 0.9]}}})
    assert config.tuning.parts["diagonal"] == {"shift": (0.1, 0.9)}
    with pytest.raises(ValueError, match=r"tuning\.sampling\.diagonal\.shift: 2 is not allowed"):
        make_config(generators=["diagonal"], tuning={"sampling": {"diagonal": {"shift": [0.1, 2]}}})
