"""The documentation: its commands and code run, the messages that it explains exist, and the site builds."""

import ast
import glob
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Poscar

from search.config_file import check_config

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.name: path for path in FILES}
PROGRAM = re.compile(r"(?:\S*/)?(hostguide|python3?|make|git|cd|pip|ray|aws|export|ssh)\b|\. \.venv")

# Commands that are not run here, by how they begin, and why. Each must occur, and everything else is run.
NOT_RUN = {
    "git clone": "the address is the reader's",
    "cd hostguide": "the tests are there already",
    "make": "installs and tests, of which this is a part; the Makefile is checked in test_project.py",
    ". .venv/bin/activate": "the tests run in an environment already",
    ".venv/bin/python -m pip": "downloads a package",
    "export": "sets what only the reader has: a key, a folder of pseudopotentials",
    "hostguide report runs/li-si --watch": "serves until it is stopped; test_report.py asks such a server",
    "hostguide judge runs/li-si --with 7net-l3i5": "relaxes for minutes, with an extra; test_panel.py judges",
    "hostguide judge runs/li-p-s --with 7net-l3i5": "the same",
    "hostguide judge mine.cif --with 7net-l3i5": "the same",
    "hostguide analyse runs/mno2": "needs the run of a whole campaign; test_analyse.py analyses frameworks",
    "hostguide verify runs/li-si --top 50 --xrd": "needs a measured pattern; test_verify_command.py has one",
    "hostguide benchmark csp benchmarks/": "needs the crystals of the Materials Project; the page has one that is run",
    "python benchmarks/": "measurements of minutes to hours",
    "python -m benchmarks.": "the same, of benchmarks that share code with the tests",
}
ELSEWHERE = {
    "cluster.md": "needs a cluster; what can be checked of it without one, other tests check",
    "electrodes.md": "screens take minutes to hours; tests/search/electrodes screens small hosts",
}
# Numbers that make a command long, and what they become here.
SMALLER = {"--trials": 2, "--samples": 2, "--top": 2, "--limit": 1, "--minutes": 1, "--relaxations": 1}


def blocks(page, kinds):
    """Code blocks of a page as (kind, text); indented ones and those without a language are of kind ''."""
    tokens = MarkdownIt().parse(PAGES[page].read_text(encoding="utf-8"))
    found = [(token.info.strip(), token.content) for token in tokens if token.type in ("code_block", "fence")]
    return [(kind, text) for kind, text in found if kind in kinds]


def commands(text):
    """Commands of a block, without what they print: a line that begins with a program, until its quotes are closed."""
    lines, found = iter(text.replace("\\\n", " ").splitlines()), []
    for line in lines:
        if PROGRAM.match(line):
            while True:
                try:
                    shlex.split(line, comments=True)
                except ValueError:  # a quotation goes on
                    line += "\n" + next(lines)
                else:
                    break
            found.append(line)
    return found


RUN_PAGES = [page for page in PAGES if page not in ELSEWHERE]
ALL_COMMANDS = [
    command for page in RUN_PAGES for _, text in blocks(page, ["", "bash", "sh"]) for command in commands(text)
]


def test_commands_are_told_from_what_they_print():
    text = "hostguide a --b 1  # why\n| c |\npython -c \"\nd('e')\"\n  hostguide f\nhostguide g \\\n  --h\n"
    assert commands(text) == ["hostguide a --b 1  # why", "python -c \"\nd('e')\"", "hostguide g    --h"]


@pytest.mark.parametrize("beginning", NOT_RUN)
def test_what_is_not_run_occurs(beginning):
    assert any(command.startswith(beginning) for command in ALL_COMMANDS)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, ["yaml"])])
def test_configurations_in_the_documents_are_valid(page):
    for _, text in blocks(page, ["yaml"]):
        content = yaml.safe_load(text)
        base = {} if "name" in content else {"name": "x", "compositions": {"system": "Li-Si"}}
        check_config(base | content, source=page)


# --- running them -------------------------------------------------------------------------------------------------

CRYSTALS = {
    "LiCoO2": ("R-3m", Lattice.hexagonal(2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]),
    "Li": ("Im-3m", Lattice.cubic(3.44), ["Li"], [[0, 0, 0]]),
    "Si": ("Fd-3m", Lattice.cubic(5.47), ["Si"], [[0, 0, 0]]),
    "Ge": ("Fd-3m", Lattice.cubic(5.76), ["Ge"], [[0, 0, 0]]),
    "LiGe": ("Fm-3m", Lattice.cubic(6.1), ["Li", "Ge"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "Li3Si": ("Fm-3m", Lattice.cubic(6.1), ["Li", "Li", "Si"], [[0.25, 0.25, 0.25], [0.5, 0.5, 0.5], [0, 0, 0]]),
    "LiCl": ("Fm-3m", Lattice.cubic(5.08), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "NaCl": ("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "MgO": ("Fm-3m", Lattice.cubic(4.22), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}


def structures():
    return {name: Structure.from_spacegroup(*about).get_primitive_structure() for name, about in CRYSTALS.items()}


def table_row(name, structure, split):
    return {
        "material_id": name,
        "formula": structure.composition.reduced_formula,
        "n_atoms": len(structure),
        "cell": [*structure.lattice.abc, *structure.lattice.angles],
        "atomic_numbers": list(structure.atomic_numbers),
        "frac_coords": structure.frac_coords.ravel().tolist(),
        "e_above_hull": 0.0,
        "energy_per_atom": -3.0,
        "split": split,
        "guest": structure.composition.elements[0].symbol,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that the documents' commands name, small enough to run them."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    small = yaml.safe_load((ROOT / "configs" / "li-si.yaml").read_text())
    small["compositions"]["max_atoms"] = 4
    small["policy"] = {"rounds": 3, "candidates_per_round": 12, "batch": 6}
    (folder / "configs" / "li-si.yaml").write_text(yaml.safe_dump(small))
    train = yaml.safe_load((ROOT / "configs" / "train" / "small.yaml").read_text())
    train |= {"steps": 2, "validate_every": 1, "validation_batches": 1, "atoms_per_batch": 8}
    train["data"]["path"] = "structures.parquet"
    (folder / "configs" / "train" / "small.yaml").write_text(yaml.safe_dump(train))

    known = structures()
    for name, new in {"LiCoO2": "LiCoO2", "Li": "Li", "Si": "Si", "Li3Si": "Li15Si4"}.items():
        known[name].to(folder / f"{new}.cif")
    known["LiCoO2"].to(folder / "host.cif")
    known["LiCl"].to(folder / "mine.cif")
    known["MgO"].to(folder / "phase.cif")
    iodide = [{"I": 1}, {"Ag": 1 / 6}], [[0, 0, 0], [0.25, 0, 0.5]]
    (folder / "disordered").mkdir()
    Structure.from_spacegroup("Im-3m", Lattice.cubic(5.062), *iodide).to(folder / "disordered" / "AgI.cif")
    half_filled = ROOT / "tests" / "data" / "users_files" / "Li6PS5Cl-half-filled.cif"
    shutil.copy(half_filled, folder / "disordered" / "Li6PS5Cl.cif")
    (folder / "blind").mkdir()
    for suffix in ("safetensors", "yaml"):
        shutil.copy(ROOT / "model" / "data" / f"small.{suffix}", folder / "blind" / f"weights.{suffix}")
    (folder / "crystals").mkdir()
    for name in ("NaCl", "MgO"):
        for percent in (99, 100, 101):
            crystal = known[name].copy()
            crystal.scale_lattice(known[name].volume * percent / 100).to(folder / "crystals" / f"{name}-{percent}.cif")
    Poscar(known["NaCl"]).write_file(folder / "POSCAR")
    known["LiCl"].to_ase_atoms().write(folder / "candidates.extxyz")
    rows = [table_row(name, one, split) for split in ("train", "val", "test") for name, one in known.items()]
    frame = pd.DataFrame(rows).assign(material_id=lambda rows: rows["split"] + "-" + rows["material_id"])
    frame.to_parquet(folder / "structures.parquet")
    frame.to_parquet(folder / "energies.parquet")
    frame[["material_id", "energy_per_atom"]].head(2).to_parquet(folder / "relaxed.parquet")
    return folder


@pytest.fixture(scope="module")
def searched(place):
    """The same with the run that most pages speak of, and finished calculations of it."""
    call("hostguide search configs/li-si.yaml --run runs/li-si", place)
    call("hostguide dft write runs/li-si --out vasp/li-si --top 2", place)
    for folder, name in (("li-si", "Li"), ("phases", "Si")):
        target = place / "vasp" / folder / name
        target.mkdir(parents=True)
        vasprun = ROOT / "tests" / "data" / "vasp" / f"{name}.xml.gz"
        shutil.copy(vasprun, target / "vasprun.xml.gz")
    for written in (place / "vasp" / "li-si").glob("*/POSCAR"):
        shutil.copy(written, written.with_name("CONTCAR"))
    return place


def call(command, folder):
    """Run a command as the shell would, in a folder; fails with what it said."""
    parts = shlex.split(command.partition(" | ")[0], comments=True)  # what follows are the reader's programs
    words = [word for part in parts for word in expanded(part, folder)]
    for option, number in SMALLER.items():
        if option in words:
            words[words.index(option) + 1] = str(number)
    name = Path(words[0]).name
    start = (
        [sys.executable] if name.startswith("python") else [sys.executable, "-c", "from search.cli import main; main()"]
    )
    done = subprocess.run([*start, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def expanded(word, folder):
    found = sorted(glob.glob(word, root_dir=folder)) if "*" in word else []
    return found or [word]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_what_a_page_shows_runs(page, searched, monkeypatch):
    monkeypatch.chdir(searched)
    names = {"structures": list(structures().values())[:2]} if page == "relaxation.md" else {}
    for kind, text in blocks(page, ["", "bash", "sh", "python"]):
        if kind == "python":
            exec(compile(text, page, "exec"), names)
        for command in [] if kind == "python" else commands(text):
            if not command.startswith(tuple(NOT_RUN)):
                call(command, searched)


# --- messages -----------------------------------------------------------------------------------------------------


def said(node):
    """The text of an exception's argument, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def messages(path):
    """Messages of the errors that a file raises."""
    raised = [node.exc for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise)]
    return [said(error.args[0]) for error in raised if isinstance(error, ast.Call) and error.args]


def explained():
    text = PAGES["troubleshooting.md"].read_text(encoding="utf-8")
    return [message.strip() for message in re.findall(r"^\| ``(.+?)`` \|", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def texts():
    """All texts in the sources, with … for what is filled in."""
    sources = [path for package in ("model", "actors", "search") for path in (ROOT / package).rglob("*.py")]
    sources.append(ROOT / "hostguide_start.py")
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return {said(node).strip() for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)}


def test_explained_messages_exist(texts):
    assert explained()
    assert not [message for message in explained() if not any(message in text for text in texts)]


def pattern(message):
    """What a row of the table may say of a message: anything where something is filled in."""
    return ".*".join(re.escape(part) for part in message.strip().split("…"))


MET_BY_MANY = [
    path
    for place in ("config.py", "planning/prepare.py", "dft/*.py", "commands/**/*.py", "reporting/*.py", "storage/*.py")
    for path in sorted((ROOT / "search").glob(place))
    if path.stem != "paths" and messages(path)  # addresses of an object store are of few, and mostly explained
]


@pytest.mark.parametrize("path", MET_BY_MANY, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_that_many_may_meet_are_explained(path):
    plain = [text for text in messages(path) if re.search(r"\w{3}", text)]
    missing = [text for text in plain if not any(re.fullmatch(pattern(text), row) for row in explained())]
    assert not missing, "explain these in docs/troubleshooting.md"


# --- the site -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody(tmp_path):
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", tmp_path]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.glob("*.html"))
    assert {path.stem for path in pages} >= {path.stem for path in FILES if path.parent.name == "docs"}
    for path in pages:
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', path.read_text(encoding="utf-8")), path
    for page, module in (("api-model", "model.relaxation.relax"), ("api-search", "search.storage.results")):
        assert f'id="module-{module}"' in (tmp_path / f"{page}.html").read_text(encoding="utf-8")
