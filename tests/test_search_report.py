"""The report of a run: what it holds, and what a browser makes of it."""

import json
import re
import shutil
import threading
import urllib.request

import numpy as np
import pytest
import yaml
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from model.stability import Stability
from search import figures
from search.config import check_config
from search.prepare import load_reference
from search.report import build_report, serve
from search.results import ResultStore, load_results, pack

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
GRAPHICS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=swiftshader"]


@pytest.fixture
def run(tmp_path, cobaltate, lisi):
    """A small Li-Si run: two relaxed crystals, one of them inpainted, and a rejected one."""
    config = check_config({"name": "small", "compositions": {"system": "Li-Si"}}, source="test")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    row = cobaltate["rows"][0] | {"formula": "LiSi", "n_atoms": len(lisi), "frameworks": [], "stage": "generated"}
    moved = lisi.replace(fractional=lisi.fractional + np.array([0.0, 0.0, 0.02]) * (lisi.numbers == 3)[:, None])
    row |= {"initial": pack(moved), "final": pack(lisi), "status": "relaxed", "reason": "", "products": {"Si": 1.0}}
    rows = [
        row | {"candidate": "first", "e_d": 0.02, "space_group": "R-3m", "space_group_number": 166},
        row | {"candidate": "second", "e_d": 0.05, "stage": "inpainted", "parent": "first", "space_group": None}
        | {"final": pack(lisi.replace(lattice=1.2 * lisi.lattice)), "space_group_number": None}
        | {"framework_space_group": "Fd-3m"},
        row | {"candidate": "third", "e_d": None, "status": "rejected", "reason": "too_close", "final": None},
    ]  # fmt: skip
    ResultStore(tmp_path).append("task", rows)
    return tmp_path


def embedded(page):
    """The JSON of the page by name."""
    blocks = re.findall(r'<script type="application/json"[^>]*?(?:id|data-for)="(\w+)">(.*?)</script>', page, re.DOTALL)
    return {name: json.loads(text.replace("<\\/", "</")) for name, text in blocks}


def test_the_page_needs_nothing_from_outside(run):
    page = build_report(run)
    assert len(page) < 10e6
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="http', page)
    assert set(embedded(page)) == {"crystals", "hull", "progress", "symmetry", "changes", "funnel"}


def test_crystals_of_the_page_are_those_of_the_run(run, lisi):
    crystals = embedded(build_report(run))["crystals"]
    assert set(crystals) == {"first", "second"}
    structure = Structure.from_str(crystals["first"]["cif"], fmt="cif")
    assert StructureMatcher().fit(structure, lisi.to_pymatgen())
    assert crystals["first"]["guests"] == ["Li"]


def test_hull_points_lie_e_d_above_the_hull(run):
    config = check_config({"name": "small", "compositions": {"system": "Li-Si"}}, source="test")
    stability = Stability(load_reference(config), "Li-Si")
    figure = figures.hull(load_results(run, structures=False), stability)
    known, generated = figure.data[0], figure.data[1]
    at = np.interp(0.5, known.x, known.y)
    np.testing.assert_allclose(generated.y, [at + 0.02], atol=1e-9)
    assert list(generated.customdata) == ["first"]


def test_a_third_element_makes_a_triangle_and_a_fourth_none(run):
    frame = load_results(run, structures=False)
    reference = load_reference(check_config({"name": "x", "compositions": {"system": "Li-Si-P"}}, source="test"))
    assert figures.hull(frame, Stability(reference, "Li-Si-P")).data[-1].type == "scatterternary"
    reference = load_reference(check_config({"name": "x", "compositions": {"system": "Li-Si-P-S"}}, source="test"))
    assert figures.hull(frame, Stability(reference, "Li-Si-P-S")) is None


def test_displacement_leaves_out_drift_and_whole_cells(lisi):
    assert figures.displacement(lisi, lisi.replace(fractional=lisi.fractional + np.array([0.3, 1.2, -2.0]))) < 1e-9
    one = lisi.fractional.copy()
    one[0] += [0.1, 0, 0]
    n, way = len(lisi), np.linalg.norm(0.1 * lisi.lattice[0])
    expected = way * np.sqrt((n - 1) / n**2)
    np.testing.assert_allclose(figures.displacement(lisi, lisi.replace(fractional=one)), expected)


def test_the_server_shows_a_run_as_it_grows_and_stays_on_this_machine(run):
    server = serve(run, 0)
    assert server.server_address[0] == "127.0.0.1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        with ask(f"{address}/version") as answer:
            before = answer.read()
        with ask(address) as answer:
            assert b"Convex hull" in answer.read()
        (row,) = load_results(run, structures=False).query("candidate == 'third'").to_dict("records")
        ResultStore(run).append("later", [{"candidate": "fourth", "status": "rejected", "reason": row["reason"]}])
        with ask(f"{address}/version") as answer:
            assert answer.read() != before
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_shows_the_hull_and_opens_a_structure(run, tmp_path, lisi):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = tmp_path / "report.html"
    page_file.write_text(build_report(run), encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=GRAPHICS)
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("#hull .scatterlayer .point")
        page.wait_for_selector("#viewer canvas")
        page.click("tr[data-candidate=second]")
        assert "+50.0 meV/atom" in page.inner_text("#title")
        dot = page.locator("#hull .scatterlayer .trace").nth(1).locator(".point").bounding_box()
        page.mouse.click(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
        page.wait_for_function("document.getElementById('title').textContent.includes('+20.0 meV/atom')")
        with page.expect_download() as download:
            page.click("#download")
        structure = Structure.from_str(
            download.value.path().read_text(), fmt="cif"
        )  # fmt: skip
        browser.close()
    assert StructureMatcher().fit(structure, lisi.to_pymatgen())
    assert errors == []
