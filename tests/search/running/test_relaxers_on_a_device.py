"""A search whose relaxer computes as on a GPU: large pieces of a batch, halved where memory is short; on a CPU here."""

import pandas as pd
import torch

from model.potentials import catalog
from model.potentials.chgnet.network import CHGNetNetwork
from search.planning.prepare import load_reference
from search.running.pipeline import load_stages, search_here
from search.storage.results import ResultStore, load_results

SETTINGS = {
    "sampling": {name: {"kind": "heun", "steps": 4} for name in ("diffusion", "inpainting")},
    "relaxation": {"max_steps": 12},
    "polish": None,
    "policy": {"rounds": 2, "candidates_per_round": 8, "samples": 2, "batch": 4},
}


def searched(config, folder) -> pd.DataFrame:
    reference = load_reference(config)
    for _ in search_here(config, reference, ResultStore(folder), load_stages(config, reference)):
        pass
    return load_results(folder, structures=False).sort_values("candidate", ignore_index=True)


def test_a_relaxer_as_on_a_gpu_gives_the_same_search(make_config, tmp_path, monkeypatch):
    config = make_config(**SETTINGS)
    expected = searched(config, tmp_path / "cpu")

    original, together, refused = CHGNetNetwork.bond_gradient, [], []

    def short_of_memory(self, graph):
        together.append(graph.crystals)
        if graph.crystals > 1 and len(together) % 5 == 0:
            refused.append(graph.crystals)
            raise torch.OutOfMemoryError
        return original(self, graph)

    monkeypatch.setattr(CHGNetNetwork, "bond_gradient", short_of_memory)
    monkeypatch.setattr(catalog, "_memory", lambda device: {"memory_mb": catalog.GPU_MEMORY_MB})
    found = searched(config, tmp_path / "device")
    assert refused and max(together) > 1
    columns = ["candidate", "generator", "cell_formula", "status", "reason", "duplicate_of"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    assert (found["e_d"] - expected["e_d"]).abs().max() < 1e-3
