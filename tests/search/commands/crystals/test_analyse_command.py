"""`hostguide analyse` on crystal files as users have them: mixed anions, vacuum, voids and partially filled sites."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from search.cli import app

FILES = Path(__file__).parents[3] / "data" / "users_files"


def analysed(tmp_path, name, *arguments):
    """The output in one line, and the folder of tables."""
    out = tmp_path / "analysis"
    result = CliRunner().invoke(app, ["analyse", str(FILES / name), "--out", str(out), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split()), out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "fluorapatite.cif",
            {("Ca", "9 O"): 0.4, ("Ca", "6 O + 1 F"): 0.6, ("F", "3 Ca"): 1, ("P", "4 O"): 1, ("O", "3 Ca + 1 P"): 1},
        ),
        ("HeMgO.cif", {("He", "none"): 1, ("Mg", "6 O"): 1, ("O", "6 Mg"): 1}),
        ("graphene.cif", {("C", "3 C"): 1}),
        ("Al111.vasp", {("Al", "9 Al"): 0.4, ("Al", "12 Al"): 0.6}),
        ("rutile.cif", {("Ti", "6 O"): 1, ("O", "3 Ti"): 1}),
    ],
)
def test_surroundings(tmp_path, name, expected):
    text, out = analysed(tmp_path, name)
    table = pd.read_csv(out / "coordination.csv", keep_default_na=False)
    found = {(row.element, row.neighbours): row.found for row in table.itertuples()}
    assert found == pytest.approx(expected)
    for element, neighbours in expected:
        assert f"│ {element} │ {neighbours} │" in text
    assert (out / "coordination.png").is_file() and (out / "radial.png").is_file()


def test_an_empty_host_has_its_ways_in_seconds(tmp_path):
    text, out = analysed(tmp_path, "rutile.cif", "--guest", "Li")
    assert "TiO2: 4 sites of Li: looking for hops up to 4.5 Å" in text
    assert "1D along [001] with hops of 1.48 Å" in text and "0.82 blocked" in text
    hops = pd.read_csv(out / "hops.csv")
    assert hops["length"].min() == pytest.approx(2.96 / 2)
    assert hops["blocked"].tolist() == [False, False, True, False, True, True, False]


def test_partially_filled_sites_are_the_sites(tmp_path):
    text, out = analysed(tmp_path, "Li6PS5Cl-half-filled.cif", "--guest", "Li")
    assert "Li6PS5Cl: 24 Li on 48 sites; tables and figures count sites, not atoms." in text
    assert "3D with hops of 2.88 Å" in text
    hops = pd.read_csv(out / "hops.csv")
    assert hops["length"][:3].tolist() == pytest.approx([1.867, 2.215, 2.884], abs=1e-3)
    assert hops["multiplicity"][:3].tolist() == [24, 48, 48]


def test_partially_filled_sites_without_their_guest_or_with_vacancies_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"partially occupied sites are not supported: Li:0\.5"):
        analysed(tmp_path, "Li6PS5Cl-half-filled.cif")
    with pytest.raises(ValueError, match="Li6PS5Cl has partially occupied sites, but none of Na"):
        analysed(tmp_path, "Li6PS5Cl-half-filled.cif", "--guest", "Na")
    with pytest.raises(ValueError, match=r"--barriers needs all sites of Li filled: add --single"):
        analysed(tmp_path, "Li6PS5Cl-half-filled.cif", "--guest", "Li", "--barriers")
