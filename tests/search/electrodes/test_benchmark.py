"""Statistics of the benchmark against numbers made by hand, and one real pair from end to end."""

import json

import jsonschema
import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from search.electrodes.benchmark import load_pairs, run_benchmark
from search.electrodes.summary import METALS, cross_validated, fit, summarise
from search.reporting.records import schema


def record(name: str, host: str, error: float, **changes: object) -> dict:
    return {
        "name": name,
        "host": host,
        "ion": "Li",
        "split": "train",
        "problem": "",
        "reference": 3.0,
        "voltage": 3.0 + error,
        "volume_change": 0.05,
        "reference_volume_change": 0.04,
        "host_kept": True,
        "seconds": 2.0,
        "known": None,
    } | changes


def test_errors_are_taken_apart():
    known = {"known": "mp-1", "voltage_known": 3.2, "sites": "lower", "matched": False}
    missed = {"known": "mp-2", "voltage_known": 3.1, "sites": "higher", "matched": False}
    records = [
        record("a", "CoO2", 0.3, **known),
        record("b", "MnO2", -0.1, **missed),
        record("c", "TiS2", 0.1),
        record("d", "VO2", 0.0, problem="no room", seconds=0.1),
    ]
    summary = summarise(records)["summary"]
    assert summary["pairs"] == 3 and summary["failed"] == 1
    assert summary["mae"] == pytest.approx(0.5 / 3) and summary["bias"] == pytest.approx(0.1)
    assert summary["median"] == pytest.approx(0.1) and summary["seconds_median"] == 2.0
    assert summary["sites_found"] == 0.5
    assert summary["potential"]["bias"] == pytest.approx(0.15)
    assert summary["sites"]["mae"] == pytest.approx((0.1 + 0.2) / 2)
    assert summary["volume_change"]["mae"] == pytest.approx(0.01)


def test_nothing_to_summarise_is_no_error():
    assert summarise([])["summary"]["mae"] is None


def test_the_correction_finds_the_offset_of_each_metal():
    rng = np.random.default_rng(0)
    offsets = {"CoO2": 0.2, "MnO2": -0.1, "TiO2": 0.2}
    records = [
        record(f"{host}{i}", f"{host[:2]}{i + 1}O2", offset + rng.normal(0, 0.01))
        for host, offset in offsets.items()
        for i in range(60)
    ]
    found = dict(zip(("constant", *METALS), fit(records), strict=True))
    for metal, offset in (("Co", 0.2), ("Mn", -0.1), ("Ti", 0.2)):
        assert found["constant"] + found[metal] == pytest.approx(offset, abs=0.03)
    errors = np.array([one["voltage"] - one["reference"] for one in records])
    assert np.abs(errors - cross_validated(records)).mean() < 0.03


def test_a_correction_is_never_fitted_on_its_own_host():
    records = [record("a", "CoO2", 5.0), *(record(f"m{i}", f"Mn{i + 1}O3", 0.0) for i in range(20))]
    assert abs(cross_validated(records)[0]) < 0.01


@pytest.fixture
def files(tmp_path):
    """TiS2, LiTiS2 and a table with one pair of them."""
    cell = Lattice.hexagonal(3.42, 5.80)
    empty = Structure.from_spacegroup("P-3m1", cell, ["Ti", "S"], [[0, 0, 0], [1 / 3, 2 / 3, 0.25]])
    full = Structure.from_spacegroup(
        "P-3m1", Lattice.hexagonal(3.46, 6.19), ["Li", "Ti", "S"], [[0, 0, 0.5], [0, 0, 0], [1 / 3, 2 / 3, 0.24]]
    )
    rows = [
        {
            "material_id": name,
            "formula": one.composition.reduced_formula,
            "cell": [*one.lattice.abc, *one.lattice.angles],
            "atomic_numbers": [site.specie.Z for site in one],
            "frac_coords": one.frac_coords.ravel().tolist(),
            "split": "train",
        }
        for name, one in (("mp-1", empty), ("mp-2", full))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "structures.parquet")
    pair = {"host": "mp-1", "working_ion": "Li", "formula_charge": "TiS2", "formula_discharge": "LiTiS2"}
    table = pd.DataFrame([{**pair, "average_voltage": 2.1, "max_delta_volume": full.volume / empty.volume - 1}])
    table.to_parquet(tmp_path / "table.parquet")
    return tmp_path


def test_pairs_are_read_with_what_is_known_of_them(files):
    (pair,) = load_pairs(files / "table.parquet", files / "structures.parquet")
    assert (pair.guest, pair.count, pair.units, pair.split) == ("Li", 1, 1.0, "train")
    assert [name for name, _ in pair.known] == ["mp-2"]
    with pytest.raises(ValueError, match=r"no pair of .* is left"):
        load_pairs(files / "table.parquet", files / "structures.parquet", ions=["Mg"])
    with pytest.raises(ValueError, match="has no pair x"):
        load_pairs(files / "table.parquet", files / "structures.parquet", names=["x"])


def test_one_pair_from_end_to_end_and_not_computed_twice(files, call):
    command = [
        "benchmark",
        "electrodes",
        str(files / "table.parquet"),
        "--structures",
        str(files / "structures.parquet"),
    ]
    command += ["--method", "voids", "--json", str(files / "out.json")]
    code, output, error = call(*command)
    assert code == 0, error
    assert "Sites found, or lower in energy: 100.0%" in output
    result = json.loads((files / "out.json").read_text())
    assert {"pairs", "mae", "median", "bias", "sites_found", "seconds_median"} <= set(result["summary"])
    jsonschema.validate(result, schema("benchmark electrodes"))
    (pair,) = result["pairs"]
    assert pair["sites"] in ("matched", "lower") and pair["host_kept"] and 1.2 < pair["voltage"] < 2.4
    lines = (files / "out.jsonl").read_text()
    assert call(*command)[0] == 0
    assert (files / "out.jsonl").read_text() == lines
    with pytest.raises(ValueError, match="another method"):
        run_benchmark(files / "table.parquet", files / "structures.parquet", out=files / "out.json")
