"""`hostguide verify` on files, with a pattern, and on a run."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from model.crystals.crystal import Crystal
from model.verification.diffraction import profile, reflections
from search.storage.judgements import load_verification
from search.storage.pattern_files import read_pattern


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Rock-salt NaCl and MgO, the measured pattern of a slightly larger MgO."""
    monkeypatch.chdir(tmp_path)
    salt, magnesia = bulk("NaCl", "rocksalt", a=5.64), bulk("MgO", "rocksalt", a=4.21)
    ase.io.write("NaCl.cif", salt)
    ase.io.write("MgO.cif", magnesia)
    peaks = reflections(Crystal.from_ase(magnesia), highest=90)
    grid = np.arange(15, 85, 0.02)
    counts = 1000 * profile(peaks.angles, peaks.intensities, grid) + 50
    noisy = np.random.default_rng(0).poisson(counts)
    lines = [f"{angle:.2f}\t{count}" for angle, count in zip(grid, noisy, strict=True)]
    (tmp_path / "measured.xy").write_text("2theta intensity\n" + "\n".join(lines))
    return tmp_path


def test_files_are_verified_as_a_list_of_objects(call, files):
    code, out, error = call("verify", "NaCl.cif", "MgO.cif", "--phonons", "--xrd", "measured.xy", "--json")
    salt, magnesia = json.loads(out)
    assert code == 0 and not error.strip()
    assert salt["formula"] == "NaCl" and salt["space_group"] == "Fm-3m"
    assert salt["known"].startswith("mp-") and salt["ion_exchange"]
    assert salt["oxidation_states"] == {"Na": 1.0, "Cl": -1.0}
    assert 0.5 < salt["lowest_frequency"] < 4  # THz
    assert salt["verdict"].startswith("known: ") and "bands" not in salt
    assert 100 < magnesia["bulk_modulus"] < 180  # GPa; measured 160
    assert magnesia["similarity"] > 0.8 > salt["similarity"]
    made = {path.name for path in (files / "verification").iterdir()}
    assert {"NaCl-phonons.png", "NaCl-pattern.png", "match.png", "verification.json"} <= made


def test_a_table_says_the_verdicts(call, files):
    code, out, _ = call("verify", "NaCl.cif", "--out", "there")
    assert code == 0
    assert "known: mp-" in " ".join(out.split()) and "phonons not computed" in " ".join(out.replace("│", "").split())
    assert (files / "there" / "NaCl-pattern.png").is_file()


def test_a_run_is_verified_and_keeps_what_was_found(call, small_run):
    code, out, _ = call("verify", small_run, "--top", "2")
    assert code == 0 and "2 of 2 are new" in " ".join(out.split())
    records = load_verification(small_run)
    assert [one["name"] for one in records] == ["first", "second"]
    assert records[0]["lowest_frequency"] is None and records[0]["e_d"] == 0.02
    code, out, _ = call("results", small_run)
    assert code == 0 and "verdict" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.cif",), "nothing.cif"),
        (("NaCl.cif", "--height", "0"), "--height and --displacement must be positive, got 0"),
        (("NaCl.cif", "--radiation", "Cu"), "--radiation 'Cu' is unknown"),
        (("NaCl.cif", "--xrd", "none.xy"), "none.xy does not exist"),
        (("NaCl.cif", "--xrd", "NaCl.cif"), "lines of two numbers"),
        (("NaCl.cif", "."), "give one run, or crystal files"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(call, files, arguments, message):
    code, _, error = call("verify", *arguments)
    assert code == 2 and message in " ".join(error.split())


def test_patterns_are_read_with_comments_and_further_columns(tmp_path):
    rows = [f"{10 + 0.1 * i:.1f}, {i % 7}, 0.5" for i in range(200)]
    path = tmp_path / "pattern.csv"
    path.write_text("# a comment\nangle, counts, error\n" + "\n".join(rows))
    pattern = read_pattern(path)
    assert pattern.angles[[0, -1]].tolist() == [10, 29.9] and pattern.intensities[3] == 3
    path.write_text("\n".join(f"{i} {i}" for i in range(200)))
    with pytest.raises(ValueError, match="2θ must lie between 0 and 180"):
        read_pattern(path)
