"""Campaigns without a search: their tasks, and rows as if these had been done."""

from dataclasses import replace

import numpy as np

from model.crystals.matching import distance_fingerprints, packed
from search.planning.campaign import Campaign
from search.running.pipeline import Provenance, failed_rows
from search.storage.rows import StoredCrystal
from tests.support.simulated import planned

V0 = 16.0  # Å³/atom
IN_LATTICES = ["diffusion", "random"]  # generators whose crystals have the volume of the cell, not of a known phase


def campaign_of(config, volume=lambda cell: V0):
    return Campaign(config, volume)


def pretended(tasks, **columns):
    """Rows of tasks as if every crystal had relaxed where it was, E_d drawn from its seed."""
    rows = []
    for task in tasks:
        failed = failed_rows(task, "", "", Provenance("pretended", "none"))
        for row, one in zip(failed, task.candidates, strict=True):
            rng = np.random.default_rng(one.template.seed)
            crystal = one.template.crystal
            crystal = crystal.replace(fractional=rng.random((len(crystal), 3)))
            made = {
                "status": "relaxed",
                "final": StoredCrystal.of(crystal),
                "fingerprint": packed(distance_fingerprints([crystal])[0]),
                "volume_per_atom": V0,
                "steps": 9,
                "evaluations": 31,
                "n_independent_atoms": len(crystal),
                "e_d": float(rng.normal(scale=0.1)),
                "energy": -3.0,
            }
            rows.append(replace(row, **{**made, **columns}))
    return rows


def without_feedback(config):
    return config.model_copy(update={"policy": config.policy.model_copy(update={"feedback": False})})


def seeds(tasks):
    return [one.template.seed for task in tasks for one in task.candidates]


def assert_same_tasks(some, others):
    assert [task.identity for task in some] == [task.identity for task in others]
    for one, other in zip(some, others, strict=True):
        assert one.settings == other.settings
        for a, b in zip(one.candidates, other.candidates, strict=True):
            assert a.origin == b.origin
            assert a.template.seed == b.template.seed
            assert a.template.crystal.identity == b.template.crystal.identity  # to the bit
            assert np.array_equal(a.template.guest, b.template.guest)


def walk(campaign, rounds, *, ahead):
    """All tasks of some rounds, each planned from the results that it may know of."""
    tasks, rows = [], []
    for number in range(rounds):
        known = campaign.known_rounds(number)
        pending = [task for past in range(len(known), number) for task in tasks[past]]
        tasks.append(planned(campaign, number, [row for past in known for row in rows[past]], pending))
        rows.append(pretended(tasks[-1]))
    assert ahead == number - len(known)
    return tasks
