import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.entries.computed_entries import ComputedEntry
from typer.testing import CliRunner

from model.thermodynamics.entries import frame_of_entries, load_entries
from model.thermodynamics.reference import Reference
from search.cli import app
from search.dft.inputs import LINK
from search.dft.results import FILE, find_vaspruns, load_dft, read_calculation, take_in, why_not

VASP = Path(__file__).parents[2] / "data" / "vasp"
quiet = pytest.mark.filterwarnings("ignore::UserWarning")  # pymatgen has much to say of inputs and of spglib


@pytest.fixture
def calculated(tmp_path):
    """A function that puts a real vasprun.xml into a folder, as the calculation of a candidate if one is named."""

    def put(name: str, candidate: str | None = None) -> Path:
        folder = tmp_path / "vasp" / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(VASP / f"{name}.xml.gz", folder / "vasprun.xml.gz")
        if candidate is not None:
            (folder / LINK).write_text(json.dumps({"candidate": candidate}))
        return folder

    return put


def calculation(folder):
    (path,) = find_vaspruns([folder])
    return read_calculation(path)


# --- results ------------------------------------------------------------------------------------------------------


def test_mp2020_corrections_are_applied_once(calculated):
    """Hematite: six oxide anions at -0.687 eV and four Fe with U at -2.256 eV, the published values of MP2020."""
    hematite = calculation(calculated("Fe2O3"))
    assert hematite.functional == "GGA+U"
    assert hematite.converged
    assert sum(hematite.corrections.values()) * 10 == pytest.approx(6 * -0.687 + 4 * -2.256, abs=1e-6)
    assert hematite.energy == pytest.approx(-6.66133524 - 1.3146, abs=1e-6)


def test_elements_and_r2scan_have_no_correction(calculated):
    assert calculation(calculated("Li")).energy == pytest.approx(-1.92459954)
    hydride = calculation(calculated("LiH"))
    assert hydride.functional == "R2SCAN"
    assert hydride.corrections == {}
    assert hydride.energy == hydride.energy_raw == pytest.approx(-3.410391955)


def test_unconverged_electrons_give_no_energy(calculated):
    vanadate = calculation(calculated("V2O5"))
    assert not vanadate.converged
    assert "did not converge" in vanadate.problem
    assert np.isnan(vanadate.energy)


def test_another_u_than_the_materials_projects_is_told(calculated):
    folder = calculated("Fe2O3")
    text = gzip.decompress((folder / "vasprun.xml.gz").read_bytes()).decode()
    assert '<v name="LDAUU">      5.30000000      0.00000000</v>' in text
    (folder / "vasprun.xml.gz").unlink()
    (folder / "vasprun.xml").write_text(
        text.replace("      5.30000000      0.00000000", "      4.00000000      0.00000000")
    )
    hematite = calculation(folder)
    assert hematite.problem == "MP2020 does not apply: Invalid U value of 4.0 on Fe, expected 5.3"
    assert np.isnan(hematite.energy)


def test_half_a_file_is_no_calculation(calculated):
    (path,) = find_vaspruns([calculated("broken")])
    with pytest.raises(ValueError, match=r"vasprun\.xml\.gz is not a finished VASP calculation"):
        read_calculation(path)


def test_folders_without_calculations_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        find_vaspruns([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"contain no vasprun\.xml"):
        find_vaspruns([tmp_path])


def iron_oxide_reference(potential="MP2020-corrected PBE"):
    entries = [ComputedEntry("Fe", -8.0), ComputedEntry("O2", -10.0), ComputedEntry("FeO", -15.0)]
    return Reference("made up", potential, "1", frame_of_entries(entry.as_dict() for entry in entries))


def test_e_d_is_measured_from_the_hull_of_the_reference(run, calculated, cobaltate):
    """Fe2O3 = 2 FeO + 1/2 O2: hull energy (2·(-15) + (-5)) / 5 = -7 eV/atom."""
    name = cobaltate["rows"][0].candidate
    (row,) = take_in(run, [calculation(calculated("Fe2O3", name))], iron_oxide_reference())
    assert row["e_d"] == pytest.approx(row["energy"] + 7.0)
    assert dict(row["products"]) == pytest.approx({"FeO": 0.8, "O2": 0.2})
    assert row["reference"] == "made up (MP2020-corrected PBE, 1)"
    assert row["e_d_potential"] == cobaltate["rows"][0].e_d
    assert row["gap"] == pytest.approx(row["e_d"] - row["e_d_potential"])
    assert row["same_structure"] is False  # DFT of hematite for a cobaltate: a link gone wrong shows


def test_what_is_stored_comes_back(run, calculated):
    take_in(run, [calculation(calculated("Fe2O3"))], iron_oxide_reference())
    frame = load_dft(run)
    assert frame.loc[0, "corrections"] == pytest.approx(
        {"MP2020 anion correction (oxide)": -0.4122, "MP2020 GGA/GGA+U mixing correction (Fe)": -0.9024}
    )
    assert isinstance(frame.loc[0, "structure"], Structure)
    assert frame.loc[0, "structure"].composition.reduced_formula == "Fe2O3"
    assert frame.loc[0, "space_group"] == "R-3c"


def test_reading_more_keeps_what_was_there_and_replaces_what_is_read_again(run, calculated):
    take_in(run, [calculation(calculated("Fe2O3"))], iron_oxide_reference())
    before = load_dft(run).loc[0]
    take_in(run, [calculation(calculated("Li")), calculation(calculated("LiH"))])
    frame = load_dft(run).set_index("formula")
    assert len(frame) == 3
    assert frame.loc["Fe2O3", "e_d"] == before["e_d"]
    take_in(run, [calculation(calculated("Li"))])
    assert len(load_dft(run)) == 3


def test_candidates_are_judged_by_the_runs_own_phases_as_these_come_in(run, calculated, cobaltate):
    """The silicon of a candidate has no E_d until another silicon is calculated; lithium is its own hull."""
    name = cobaltate["rows"][0].candidate
    (row,) = take_in(run, [calculation(calculated("Si", name))])
    assert "e_d" not in row
    competing = calculated("Li").parent / "other-Si"
    shutil.copytree(calculated("Si"), competing)
    (competing / LINK).unlink()
    take_in(run, [calculation(calculated("Li")), calculation(competing)])
    frame = load_dft(run)
    assert frame["e_d"].tolist() == pytest.approx([0, 0, 0])
    assert set(frame["reference"]) == {"own calculations (MP2020-corrected PBE)"}


@pytest.mark.parametrize(
    ("name", "potential", "words"),
    [
        ("Fe2O3", "MP2020-corrected PBE", ""),
        ("Fe2O3", "chgnet-0.3.0", ""),
        ("Fe2O3", "chgnet-r2scan", "GGA+U cannot be compared with chgnet-r2scan"),
        ("Fe2O3", "r2SCAN", "GGA+U cannot be compared with r2SCAN"),
        ("LiH", "MP2020-corrected PBE", "R2SCAN cannot be compared with MP2020-corrected PBE"),
        ("LiH", "r2SCAN", "the reference has no phase of the element H, Li"),
        ("V2O5", "MP2020-corrected PBE", "the electrons did not converge"),
    ],
)
def test_only_energies_of_one_kind_are_compared(calculated, name, potential, words):
    reason = why_not(calculation(calculated(name)), iron_oxide_reference(potential))
    assert reason == words


# --- the commands -------------------------------------------------------------------------------------------------


def invoke(*arguments):
    result = CliRunner().invoke(app, ["dft", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_to_vasp_and_back(run, tmp_path):
    out = tmp_path / "out"
    text = invoke("write", run, "--out", out, "--top", 1)
    assert "No POTCARs were written: set PMG_VASP_PSP_DIR" in text
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    shutil.copy(VASP / "Fe2O3.xml.gz", folder / "vasprun.xml.gz")
    shutil.copytree(folder, out / "broken")
    shutil.copy(VASP / "broken.xml.gz", out / "broken" / "vasprun.xml.gz")
    reference = tmp_path / "entries.json"
    entries = [ComputedEntry(name, -5.0) for name in ("Fe", "O")]
    reference.write_text(json.dumps([entry.as_dict() for entry in entries]))
    with pytest.raises(ValueError, match="--reference-potential"):
        invoke("read", out, "--run", run, "--reference", reference)
    assert not (run / FILE).exists()
    text = invoke("read", out, "--run", run, "--reference", reference, "--reference-potential", "MP2020-corrected PBE")
    assert "Skipped:" in text and "broken" in text
    frame = load_dft(run)
    assert frame.loc[0, "candidate"] == json.loads((folder / LINK).read_text())["candidate"]
    assert frame.loc[0, "e_d"] == pytest.approx(-7.97593524 + 5.0)


def test_json(run, calculated, printed):
    (found,) = printed("dft read", calculated("Li"), "--run", run, "--reference", "packaged")
    assert found["formula"] == "Li" and found["converged"] and found["candidate"] == ""


def test_a_potentials_hull_comes_with_a_warning(run, calculated):
    text = invoke("read", calculated("Li"), "--run", run, "--reference", "packaged")
    assert "energies of chgnet-0.3.0, whose error of about 29 meV/atom affects E_d and the difference" in text


def test_missing_competing_phases_are_explained(run, calculated):
    text = invoke("read", calculated("Fe2O3"), "--run", run)
    assert "No E_d for Fe2O3: the reference has no phase of the element Fe, O" in text
    assert "hostguide dft write" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("read", "{vasp}", "--run", "{run}", "--reference", "nowhere.json"), r"nowhere\.json.*does not exist"),
        (("read", "{vasp}", "--run", "{vasp}"), "contains no results"),
    ],
)
def test_bad_input_is_told_before_any_work(run, calculated, arguments, words):
    folders = {"run": run, "vasp": calculated("Li")}
    with pytest.raises(ValueError, match=words):
        invoke(*(argument.format(**folders) for argument in arguments))


def test_entries_with_corrections_give_corrected_references(tmp_path):
    """What the docs say of --reference: an entry counts with the corrections stored in it."""
    entry = ComputedEntry("FeO", -14.0, correction=-1.0)
    (tmp_path / "e.json").write_text(json.dumps([entry.as_dict()]))
    reference = load_entries(tmp_path / "e.json", potential="MP2020-corrected PBE")
    assert reference.phases.loc[0, "energy_per_atom"] == pytest.approx(-7.5)
