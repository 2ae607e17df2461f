"""The page of a screen, in a browser: filters, a click on a dot, and the files that it gives."""

import csv
import re
import shutil
import threading
import urllib.request
from dataclasses import replace

import pytest
from pymatgen.core import Structure

from search.electrodes.config import check_screen
from search.electrodes.rows import ElectrodeRow, Outcome
from search.electrodes.store import ScreenStore, keep_config
from search.reporting.report import serve
from search.reporting.screen_report import COLUMNS, build_screen_report
from tests.support.electrodes import HOST, rows_of_host

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
GRAPHICS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=swiftshader"]


@pytest.fixture
def screen(tmp_path):
    """Two electrodes of Li, one of which does not keep its host, a host that is given up, and one that is broken."""
    run = tmp_path / "run"
    run.mkdir()
    keep_config(run, check_screen({"name": "cobalt", "guests": ["Li"]}, source="test"))
    store = ScreenStore(run)
    store.store("a", rows_of_host((4.0, 1.0)))
    store.store("b", rows_of_host((2.0, 1.9), task="b", host="other", host_kept=False, e_d=0.2))
    store.store("c", [replace(rows_of_host(task="c", host="MgO")[0], status=Outcome.GIVEN_UP, reason="no_electrons")])
    about = {"source": "b.cif", "status": Outcome.FAILED, "reason": "unreadable: no atoms", "potential": "p"}
    store.store("d", [ElectrodeRow(task="d", host="</script>", guest="", **about)])
    return run


def test_the_page_has_what_was_found_and_why_the_others_were_not(screen):
    page = build_screen_report(screen)
    assert "no element of the host can be reduced" in page and "unreadable: no atoms" in page
    assert "&lt;/script&gt;" in page and page.count("<script>") == page.count("</script>") - 2


def test_the_report_command_knows_a_screen_from_a_search(screen, tmp_path, call):
    out = tmp_path / "page.html"
    assert call("report", screen, "--out", out)[0] == 0
    assert "Voltage against capacity" in out.read_text()


def test_the_server_shows_a_screen_as_it_grows(screen):
    server = serve(screen, 0, build_screen_report)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        address = f"http://127.0.0.1:{server.server_port}"
        with ask(address) as answer:
            assert b'fetch("/version")' in answer.read()
        with ask(f"{address}/version") as answer:
            before = answer.read()
        ScreenStore(screen).store("e", rows_of_host(task="e", host="third"))
        with ask(f"{address}/version") as answer:
            assert answer.read() != before
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_filters_opens_structures_and_saves_tables(screen, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    page_file = tmp_path / "report.html"
    page_file.write_text(build_screen_report(screen), encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=GRAPHICS)
        page = browser.new_page(color_scheme="dark", viewport={"width": 1280, "height": 900})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("#plot .scatterlayer .point")
        page.wait_for_selector("#view-full canvas")
        assert page.inner_text("#count") == "2 of 2"
        first = page.inner_text("#about")
        dots = page.locator("#plot .scatterlayer .point")
        boxes = [dots.nth(i).bounding_box() for i in range(dots.count())]
        box = min(boxes, key=lambda one: one["width"])  # the dot that is not chosen
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_function("text => document.getElementById('about').innerText !== text", arg=first)
        assert page.evaluate("chosen") != page.evaluate("electrodes[0].id")
        page.check("#kept")
        assert page.inner_text("#count") == "1 of 2" and page.locator("#table tbody tr").count() == 1
        page.uncheck("#kept")
        page.fill("#stability", "50")
        assert page.inner_text("#count") == "1 of 2"
        page.fill("#stability", "")
        page.fill("#elements", "Mn")
        assert page.inner_text("#count") == "0 of 2"
        page.fill("#elements", "O, Co")
        with page.expect_download() as download:
            page.click("#csv")
        table = list(csv.DictReader(download.value.path().read_text().splitlines()))
        page.click("#table tbody tr[data-id='CoO2-Li']")
        with page.expect_download() as download:
            page.click("#download-empty")
        empty = Structure.from_str(download.value.path().read_text(), fmt="cif")
        colours = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.set_viewport_size({"width": 390, "height": 900})
        page.wait_for_function("document.documentElement.scrollWidth <= 390")
        browser.close()
    assert list(table[0]) == list(COLUMNS) and len(table) == 2
    (row,) = [one for one in table if one["host"] == "CoO2"]
    assert float(row["average_voltage"]) == pytest.approx(4.0)
    assert empty.composition.reduced_formula == HOST.formula
    assert re.fullmatch(r"rgb\(18, 22, 29\)", colours)
    assert errors == []
