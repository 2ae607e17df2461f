"""Making training data: sources, filters, splits, and the way into the trainer."""

from pathlib import Path

import ase.db
import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.diffusion.dataset import DataConfig, load_crystals
from model.thermodynamics.reference import packaged_reference
from search.commands.models.data import data
from search.commands.models.train import train
from search.studies.training import draw_curves
from search.studies.training_data import Entry, Filters, filtered, judged, read_source, reasons, split_of, table


def salt(symbol: str, edge: float = 5.64) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(edge), [symbol, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


NAMES = ("Na", "K", "Li", "Rb", "Cs", "Ag")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """CIFs, one in a subfolder, one that is partially occupied, one that is no CIF, and one that is too dense."""
    (tmp_path / "cifs" / "deep").mkdir(parents=True)
    for name in NAMES:
        salt(name, 5.64 if name in ("Na", "Ag") else 6.4).to(str(tmp_path / "cifs" / f"{name}Cl.cif"))
    salt("Na", 5.7).to(str(tmp_path / "cifs" / "deep" / "NaCl-2.cif"))
    Structure(Lattice.cubic(3), [{"Na": 0.5}], [[0, 0, 0]]).to(str(tmp_path / "cifs" / "half.cif"))
    (tmp_path / "cifs" / "broken.cif").write_text("no cif")
    salt("Na", 2.0).to(str(tmp_path / "cifs" / "dense.cif"))
    return tmp_path / "cifs"


def make(source: Path, out: Path, *, max_e_above_hull: float = 0.5, without: tuple[str, ...] = (), **shares) -> None:
    options = {"val": 0.4, "test": 0.2, "seed": 1, **shares}
    data(source, out, max_atoms=60, max_e_above_hull=max_e_above_hull, without=",".join(without), **options)


def test_a_folder_of_cifs_becomes_training_data(folder: Path, tmp_path: Path) -> None:
    """CHGNet and the packaged hull say how far above it each is; what is dropped is listed with its reason."""
    out = tmp_path / "data.parquet"
    make(folder, out, without=("Ag",))
    frame = pd.read_parquet(out).set_index("material_id")
    assert set(frame.index) == {f"{name}Cl.cif" for name in NAMES if name != "Ag"} | {"deep/NaCl-2.cif"}
    assert abs(frame.loc["NaCl.cif", "e_above_hull"]) < 0.05
    assert frame.loc["NaCl.cif", "split"] == frame.loc["deep/NaCl-2.cif", "split"]
    dropped = pd.read_csv(tmp_path / "data.dropped.csv").set_index("material_id")["reason"]
    assert dropped["half.cif"] == "partial occupancy" and dropped["dense.cif"] == "volume"
    assert dropped["broken.cif"].startswith("unreadable") and dropped["AgCl.cif"] == "contains Ag"
    loaded = {crystal.formula: crystal for group in load_crystals(splits(out)).groups.values() for crystal in group}
    stored = Crystal.from_pymatgen(Structure.from_file(folder / "KCl.cif"))
    np.testing.assert_allclose(loaded["KCl"].lattice, stored.lattice, atol=1e-6)
    np.testing.assert_array_equal(loaded["KCl"].fractional, stored.fractional)


def splits(path: Path) -> DataConfig:
    """All rows as one split."""
    frame = pd.read_parquet(path).assign(split="train")
    frame.to_parquet(path.with_name("all.parquet"))
    return DataConfig(path=str(path.with_name("all.parquet")), max_e_above_hull=1.0)


def test_an_ase_database_with_energies_trains_a_network(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "some.db") as database:
        for number, name in enumerate(NAMES):
            atoms = Crystal.from_pymatgen(salt(name, 5.6 + 0.1 * number)).to_ase()
            split = "val" if name == "Cs" else "train"
            database.write(atoms, key_value_pairs={"e_above_hull": 0.02 * number, "split": split})
    make(tmp_path / "some.db", tmp_path / "data.parquet", max_e_above_hull=0.09)
    frame = pd.read_parquet(tmp_path / "data.parquet")
    assert frame["formula"].tolist() == [f"{name}Cl" for name in NAMES[:5]]  # the last lies too high
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"data: {{path: {tmp_path / 'data.parquet'}}}\n"
        "network: {multiplicities: [4, 2], layers: 1, cutoff: 3.5, radial: 2, radial_hidden: 4, node_hidden: 4}\n"
        "steps: 4\natoms_per_batch: 16\nvalidate_every: 2\nvalidation_batches: 1\n"
    )
    train(config, tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "weights.safetensors").exists()
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert draw_curves(tmp_path) is None


def test_a_parquet_file_keeps_its_splits_and_distances(tmp_path: Path) -> None:
    first = tmp_path / "first.parquet"
    entries = [
        Entry(name=name, crystal=Crystal.from_pymatgen(salt(name)), e_above_hull=0.01, split="test") for name in NAMES
    ]
    table(entries, val=0.1, test=0.1, seed=0).to_parquet(first)
    again = list(judged(list(filtered(read_source(first), Filters())), None, packaged_reference(), Filters()))
    assert [entry.problem for entry in again] == [""] * len(NAMES)
    assert {entry.split for entry in again} == {"test"} and {entry.e_above_hull for entry in again} == {0.01}
    frame = table(again, val=0.1, test=0.1, seed=0)
    assert frame["guest"].tolist() == ["Na", "K", "Li", "", "", ""]
    pd.testing.assert_frame_equal(frame, pd.read_parquet(first), check_dtype=False, rtol=1e-9)


def test_reasons_are_counted() -> None:
    crystal = Crystal.from_pymatgen(salt("Na"))
    entries = [
        Entry(name="a", crystal=crystal, e_above_hull=0.0),
        Entry(name="b", crystal=crystal, e_above_hull=0.0),
        Entry(name="c", crystal=crystal.select(np.arange(8) < 1), e_above_hull=0.0),
        Entry(name="d", crystal=crystal.replace(lattice=crystal.lattice * 1.01)),
    ]
    kept = list(judged(list(filtered(entries, Filters())), None, packaged_reference(), Filters()))
    assert [entry.problem for entry in kept] == [
        "",
        "same as a",
        "not 2 to 250 atoms",
        "energy above the hull unknown",
    ]
    assert dict(reasons(kept))["same as another"] == 1


def test_formulas_go_whole_into_splits_of_the_right_size() -> None:
    found = [split_of(f"X{number}", val=0.1, test=0.2, seed=0) for number in range(4000)]
    assert found.count("val") / 4000 == pytest.approx(0.1, abs=0.02)
    assert found.count("test") / 4000 == pytest.approx(0.2, abs=0.03)
    assert found != [split_of(f"X{number}", val=0.1, test=0.2, seed=1) for number in range(4000)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none.parquet", {}, "does not exist"),
        ("empty", {}, "contains no .cif file"),
        ("text.txt", {}, "an ASE .db file"),
        ("empty", {"val": 0.0}, "--val 0.0 and --test 0.2 must be fractions"),
        ("empty", {"without": ("Xx",)}, "--without 'Xx' is not an element; use symbols such as Li"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, name: str, options: dict, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match=message):
        make(tmp_path / name, tmp_path / "out.parquet", **options)
