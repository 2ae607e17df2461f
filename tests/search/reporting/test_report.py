"""The report of a run: what it holds, and what a browser makes of it."""

import json
import re
import shutil
import threading
import urllib.request
from dataclasses import replace

import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from search.reporting.report import build_report, serve
from search.storage.judgements import store_judgements
from search.storage.results import ResultStore
from search.studies.verify import write_records
from tests.support.rows import judgement

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
GRAPHICS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=swiftshader"]


def embedded(page):
    """The JSON of the page by name."""
    blocks = re.findall(r'<script type="application/json"[^>]*?(?:id|data-for)="(\w+)">(.*?)</script>', page, re.DOTALL)
    return {name: json.loads(text.replace("<\\/", "</")) for name, text in blocks}


def test_the_page_needs_nothing_from_outside(small_run):
    page = build_report(small_run)
    assert len(page) < 10e6
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="http', page)
    assert set(embedded(page)) == {"crystals", "hull", "progress", "symmetry", "changes", "funnel"}


def test_crystals_of_the_page_are_those_of_the_run(small_run, lisi):
    crystals = embedded(build_report(small_run))["crystals"]
    assert set(crystals) == {"first", "second"}
    structure = Structure.from_str(crystals["first"]["cif"], fmt="cif")
    assert StructureMatcher().fit(structure, lisi.to_pymatgen())
    assert crystals["first"]["guests"] == ["Li"]


@pytest.mark.parametrize(
    ("parent", "framework", "expected"),
    [(None, None, "new"), ("a-01", None, "mutation of a-01"), ("a-01", "a-01-f0", "host P6/mmm of a-01")],
)
def test_the_table_says_what_a_crystal_was_made_from(small_run, parent, framework, expected):
    store = ResultStore(small_run)
    (row,) = [row for row in store.rows(["task"]) if row.candidate == "first"]
    group = None if framework is None else "P6/mmm"
    store.append("task", [replace(row, parent=parent, framework=framework, framework_space_group=group)])
    (cells,) = re.findall(r'<tr [^>]*data-candidate="first">(.*?)</tr>', build_report(small_run), re.DOTALL)
    assert cells.endswith(f"<td>{expected}</td>")


def test_other_verdicts_stand_beside_the_searchs_own(small_run):
    assert ">by chgnet-r2scan<" not in build_report(small_run)
    store_judgements(small_run, [judgement("second", e_d=0.05, e_d_judge=-0.011, converged=False)])
    page = build_report(small_run)
    assert ">by chgnet-r2scan<" in page and ">by DFT<" not in page
    assert re.search(r"-11\.0\s+<small class=\"note\">unconverged</small>", page)
    assert "potentials disagree" in page
    assert "(-11.0 to +50.0)" in page  # on the hull plot, with an error bar


def verified(name, **more):
    bands = {"places": [0, 0.5, 1], "frequencies": [[0, -1.2, 0], [2, 3, 2.5]], "ticks": [0, 1], "labels": ["G", "X"]}
    found = {"name": name, "formula": "LiSi", "space_group": "R-3m", "grade": "worth DFT", "known": None}
    found |= {"verdict": "worth DFT: new; balanced: Li+ Si−", "ion_exchange": False, "type_text": "nearest type X"}
    return found | {"bulk_modulus": 41.3, "bands": bands, "distorts_to": []} | more


def test_verified_crystals_have_cards(small_run):
    assert "<h2>Verdicts</h2>" not in build_report(small_run)
    failed = {"name": "second", "formula": "LiSi", "atoms": 2, "problem": "crashed"}
    failed |= {"grade": "failed", "verdict": "not verified: crashed"}
    write_records(small_run, [verified("first"), failed])
    page = build_report(small_run)
    cards = re.findall(r'<article class="verdict"[^>]*data-candidate="(\w+)">(.*?)</article>', page, re.DOTALL)
    assert [name for name, _ in cards] == ["first", "second"]
    for text in ("<li>new</li>", "<li>balanced: Li+ Si−</li>", "bulk modulus 41 GPa", 'class="imaginary"', ">Γ<"):
        assert text in cards[0][1]
    assert "<li>crashed</li>" in cards[1][1] and "<svg" not in cards[1][1]
    assert "1 of 1 new ones verified" in page


def test_the_server_shows_a_run_as_it_grows_and_stays_on_this_machine(small_run):
    server = serve(small_run, 0)
    assert server.server_address[0] == "127.0.0.1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        with ask(f"{address}/version") as answer:
            before = answer.read()
        with ask(address) as answer:
            assert b"Convex hull" in answer.read()
        store = ResultStore(small_run)
        (row,) = (row for row in store.rows(["task"]) if row.candidate == "third")
        store.append("later", [replace(row, candidate="fourth")])
        with ask(f"{address}/version") as answer:
            assert answer.read() != before
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_shows_the_hull_opens_a_structure_and_prints_black_on_white(small_run, tmp_path, lisi):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = tmp_path / "report.html"
    page_file.write_text(build_report(small_run), encoding="utf-8")
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#hull .xtitle')).fill"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=GRAPHICS)
        page = browser.new_page(color_scheme="dark")
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("#hull .scatterlayer .point")
        page.wait_for_selector("#viewer canvas")
        page.click("tr[data-candidate=second]")
        assert "+50.0 meV/atom" in page.inner_text("#title")
        dot = page.locator("#hull .scatterlayer .trace").nth(2).locator(".point").bounding_box()
        page.mouse.click(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
        page.wait_for_function("document.getElementById('title').textContent.includes('+20.0 meV/atom')")
        with page.expect_download() as download:
            page.click("#download")
        structure = Structure.from_str(download.value.path().read_text(), fmt="cif")
        colours = [page.evaluate(f"[{background}, {ink}]")]
        for event in ("beforeprint", "afterprint"):
            page.evaluate(f"dispatchEvent(new Event('{event}'))")
            colours.append(page.evaluate(f"[{background}, {ink}]"))
        browser.close()
    assert StructureMatcher().fit(structure, lisi.to_pymatgen())
    assert colours[1] == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert colours[0] == colours[2] == ["rgb(18, 22, 29)", "rgb(230, 234, 240)"]
    assert errors == []
