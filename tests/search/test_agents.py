"""The server for agents, driven by the SDK's own client."""

import json
import sys
import time
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from search.agents import server


def ask(folder, *calls):
    """Results of tools of a server that may write to a folder: content if they fail, else what they return."""

    async def asked():
        async with Client(server(folder)) as client:
            names = {tool.name: tool for tool in (await client.list_tools()).tools}
            return names, [await client.call_tool(name, arguments) for name, arguments in calls]

    return anyio.run(asked)


@pytest.fixture
def salt(tmp_path, lisi):
    path = tmp_path / "LiSi.cif"
    lisi.to_pymatgen().to(filename=str(path))
    return str(path)


def test_without_a_folder_only_tools_that_read_are_offered(small_run):
    before = sorted(small_run.rglob("*"))
    tools, (found,) = ask(None, ("results", {"run": str(small_run)}))
    assert set(tools) == {"validate", "status", "results", "evaluate", "known_phases"}
    assert all(tool.annotations.read_only_hint for tool in tools.values())
    assert [one["formula"] for one in found.structured_content["result"]] == ["LiSi", "LiSi"]
    assert found.structured_content["result"][0]["file"] is None and sorted(small_run.rglob("*")) == before


def test_tools_have_the_schemas_of_the_commands():
    tools, _ = ask(None)
    properties = tools["results"].output_schema["$defs"]["FoundCrystal"]["properties"]
    assert {"formula", "space_group", "e_d", "products"} <= set(properties)


def test_crystals_are_relaxed_in_the_folder_and_nowhere_else(tmp_path, salt):
    folder = tmp_path / "mine"
    folder.mkdir()
    tools, (fine, outside) = ask(
        folder, ("relax", {"files": [salt]}), ("relax", {"files": [salt], "name": "../elsewhere"})
    )
    assert not tools["relax"].annotations.read_only_hint
    (row,) = fine.structured_content["result"]
    assert row["outcome"] == "converged" and Path(row["file"]).parent == folder / "relaxed"
    assert outside.is_error and "does not lie in" in outside.content[0].text
    assert not (tmp_path / "elsewhere").exists()


def test_a_verdict_and_a_judge(tmp_path, salt, small_run):
    folder = tmp_path / "mine"
    folder.mkdir()
    _, (verdict, judged, outside) = ask(
        folder,
        ("verify", {"sources": [salt]}),
        ("judge", {"sources": [salt], "potentials": ["chgnet-r2scan"]}),
        ("judge", {"sources": [str(small_run)], "potentials": ["chgnet-r2scan"]}),
    )
    (found,) = verdict.structured_content["result"]
    assert found["grade"] and (folder / "verified").is_dir()
    assert not judged.is_error, judged.content[0].text
    (row,) = judged.structured_content["result"]
    assert row["formula"] == "LiSi" and row["judges"]["chgnet-r2scan"]["converged"]
    assert outside.is_error and "does not lie in" in outside.content[0].text


def test_errors_are_those_of_the_command_and_options_are_no_files(tmp_path):
    _, (missing, option) = ask(None, ("evaluate", {"files": ["none.cif"]}), ("evaluate", {"files": ["--out=a.csv"]}))
    assert missing.is_error and "none.cif: no such file" in missing.content[0].text
    assert option.is_error and "--out=a.csv" in option.content[0].text


@pytest.mark.slow
def test_a_client_drives_a_search_to_its_results(tmp_path):
    start = "from hostguide_start import main; main()"
    program = StdioServerParameters(command=sys.executable, args=["-c", start, "mcp", "--folder", str(tmp_path)])

    async def drive():
        async with Client(stdio_client(program)) as client:
            question = {"what": "Li3Si", "guests": ["Li"], "max_atoms": 4}
            plan = await client.call_tool("validate", question)
            assert plan.structured_content["formulas"][0]["formula"] == "Li3Si"
            started = await client.call_tool("search", {**question, "minutes": 2, "name": "first"})
            run = started.structured_content["run"]
            deadline = time.monotonic() + 400
            state = "unknown"
            while state in ("unknown", "running"):
                assert time.monotonic() < deadline, (tmp_path / "runs" / "first.log").read_text()
                await anyio.sleep(5)
                found = await client.call_tool("status", {"run": run})
                state = "unknown" if found.is_error else found.structured_content["state"]
            assert state in ("stopped", "finished")
            best = await client.call_tool("results", {"run": run, "top": 3})
            return json.loads(json.dumps(best.structured_content["result"]))

    best = anyio.run(drive)
    assert best and best[0]["formula"] == "Li3Si" and Path(best[0]["file"]).is_file()
