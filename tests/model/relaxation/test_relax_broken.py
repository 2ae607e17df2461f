"""Broken and strange crystals of every kind go through the relaxer; a benchmark sends ten thousand of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import relax
from tests.support.broken import KINDS, SETTINGS, advance, broken, contradiction, new_record, summarise

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def chgnet() -> CHGNetPotential:
    return CHGNetPotential()


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_none_crashes_or_goes_unsaid(optimizer, chgnet) -> None:
    crystals = [broken(i) for i in range(6 * len(KINDS))]
    settings = SETTINGS.model_copy(update={"optimizer": optimizer, "max_steps": 8})
    results = relax(crystals, chgnet, settings)
    assert [contradiction(result, settings) for result in results] == [""] * len(crystals)
    assert len({result.reason for result in results}) >= 4
    of_kind = {kind.__name__: results[place :: len(KINDS)] for place, kind in enumerate(KINDS)}
    assert {result.reason for result in of_kind["not_finite"]} == {"nan"}
    assert all(result.detail for result in of_kind["not_finite"])
    assert "fused_atoms" in {result.reason for result in of_kind["fused"]}


def test_what_happens_is_counted(chgnet) -> None:
    record = new_record()
    advance(record, 6, chgnet)
    assert (record["done"], sum(summarise(record)["reasons"].values())) == (6, 6)

    class Breaks(CHGNetPotential):
        def compute(self, batch, symmetry=None):
            raise RuntimeError("no answer")

    advance(record, 8, Breaks())
    assert record["done"] == 8 and "no answer" in record["crashes"][0]["error"]


def test_a_false_result_is_noticed(chgnet) -> None:
    from dataclasses import replace

    (result,) = relax([broken(5)], chgnet, SETTINGS)
    lies = [
        {"reason": "happy"},
        {"reason": "converged", "converged": True, "max_force": 9.0},
        {"reason": "nan", "converged": True},
        {"reason": "step_limit", "converged": False, "energy_final": np.nan},
    ]
    assert all(contradiction(replace(result, **lie), SETTINGS) for lie in lies)
