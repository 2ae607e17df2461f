"""The shape of the project: which part knows which, what is shipped, and whether the documents tell the truth."""

import ast
import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import get_args

import pytest
import typer

from model.generators.registry import GENERATORS
from search.cli import app
from search.config import SearchConfig, Tuning

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "actors", "search")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.is_file()
]
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".sh", ""}


def imports(path):
    """Full names of the modules that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def roots(path):
    return {name.split(".")[0] for name in imports(path)}


def name_of(path):
    return str(path.relative_to(ROOT))


def project_files():
    """Files under version control or about to be."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


# --- imports ------------------------------------------------------------------------------------------------------


def room_of(module):
    """The sub-package that a module lies in, or the module itself where it lies in none."""
    parts = module.split(".")[:2]
    return ".".join(parts)


def test_no_folder_is_crowded():
    files = [path for path in project_files() if path.suffix == ".py" and path.name != "__init__.py"]
    counted = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    assert len(files) > 200
    assert max(counted.values()) <= 15, counted.most_common(3)


def test_every_room_says_what_lives_there():
    folders = {path.parent for path in SOURCES}
    for folder in folders:
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert said and not list(imports(folder / "__init__.py")), name_of(folder)
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert all(re.search(rf"[`.]{name}`", said) for name in modules), name_of(folder)


def test_rooms_do_not_import_each_other_in_a_circle():
    uses = defaultdict(set)
    for path in SOURCES:
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        uses[room] |= {room_of(name) for name in imports(path) if name.split(".")[0] in PACKAGES} - {room}
    assert uses["model.stages"] and uses["search.commands"]
    list(TopologicalSorter(uses).static_order())  # raises CycleError


def test_a_circle_is_seen():
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).static_order())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path):
    forbidden = {"model": {"actors", "search", "ray"}, "actors": {"search"}, "search": set()}
    assert not roots(path) & forbidden[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_ray_is_imported_at_the_edge_only(path):
    if path.relative_to(ROOT).parts[0] != "actors":
        assert "ray" not in roots(path)


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=name_of)
def test_names_are_imported_from_their_modules(path):
    """`from model.diffusion.sampler import ...`, never `import model`."""
    plain = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Import)]
    assert not {alias.name.split(".")[0] for node in plain for alias in node.names} & set(PACKAGES)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name_of)
def test_tests_import_no_benchmark(path):
    """What both need lies in tests/support."""
    assert "benchmarks" not in roots(path)


def code_words(path):
    """Names and texts in the code of a file; comments and docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    }
    yield from imports(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute):
            yield node.id if isinstance(node, ast.Name) else node.attr


def test_only_the_catalogue_names_a_potential():
    naming = {name_of(path) for path in SOURCES if any("chgnet" in word.lower() for word in code_words(path))}
    outside = {name for name in naming if not name.startswith("model/potentials/chgnet/")}
    assert outside == {"model/potentials/catalog.py"} != naming


def test_the_direction_is_seen_where_it_is_broken(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    import ray\n    from search.config import load_config\n")
    assert roots(path) == {"ray", "search"}


# --- dependencies -------------------------------------------------------------------------------------------------


def declared():
    """Names of the declared distributions: those of the program, and by extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return names_of(project["dependencies"]), {extra: names_of(listed) for extra, listed in extras.items()}


def names_of(requirements):
    return {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def installed():
    """Distributions by the modules that they bring."""
    return packages_distributions()


def undeclared(modules, allowed):
    """Third-party modules that belong to no distribution that is declared."""
    known = installed()
    third_party = (
        modules - set(sys.stdlib_module_names) - {*PACKAGES, "hostguide_start", "tests", "benchmarks", "examples"}
    )
    return {name for name in third_party if not {canonical(one) for one in known.get(name, [name])} & allowed}


def roots_at_the_top(path):
    """Packages that a file imports whenever it is imported itself."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    plain = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[0] for name in [*plain, *(n.module for n in body if isinstance(n, ast.ImportFrom))]}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_the_program_imports_is_declared(path):
    needed, extras = declared()
    assert not undeclared(roots_at_the_top(path), needed)
    assert not undeclared(
        roots(path), needed | extras["aws"] | extras["mp"] | extras["mcp"]
    )  # extras are imported where they are used


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_what_tests_and_benchmarks_import_is_declared(folder):
    needed, extras = declared()
    found = set().union(*(roots(path) for path in (ROOT / folder).rglob("*.py")))
    assert not undeclared(found, needed | extras["dev"] | extras["sevennet"])  # sevenn: what is compared with ours


def test_what_is_not_declared_is_seen():
    assert undeclared({"os", "model", "numpy", "yaml", "networkx"}, {"numpy", "pyyaml"}) == {"networkx"}


# --- what is shipped ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the working tree."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and nothing is downloaded here")
    source, out = tmp_path_factory.mktemp("source") / "hostguide", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("hostguide_start.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "--quiet", "-w", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("hostguide-*.whl")
    return path


def test_the_wheel_holds_the_program_and_its_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {name_of(path) for path in SOURCES} <= names
    assert {name_of(path) for path in (ROOT / "model" / "data").iterdir()} <= names
    assert {"model/data/small.safetensors", "model/data/small.yaml"} <= names
    assert any(re.fullmatch(r"model/data/reference-.*\.parquet", name) for name in names)
    assert "hostguide = hostguide_start:main" in entry


def test_the_wheel_holds_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {*PACKAGES, "hostguide_start.py"}
    assert wheel.stat().st_size < 30e6


# --- what the documents say ---------------------------------------------------------------------------------------


def test_the_readme_and_the_checks_run_the_same_tests():
    run = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"^make test$", run, re.MULTILINE)
    assert re.search(r"^\s+make test\b", readme, re.MULTILINE)
    for target in re.findall(r"^\s+make (\S+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def invocations(text):
    """Words after each `hostguide` that begins a command: in a code block, after a path, or at the start of `code`."""
    blocks = re.findall(r"^ {4,}(?:\$ )?(?:\S*/)?hostguide (.+?)\\?$", text, re.MULTILINE)
    fenced = re.findall(
        r"^(?:\$ )?(?:\S*/)?hostguide (.+?)\\?$",
        "\n".join(re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)),
        re.MULTILINE,
    )
    inline = re.findall(r"`(?:\S*/)?hostguide ([^`]+)`", text)
    return [line.split() for line in (*blocks, *fenced, *inline)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_documented_commands_and_options_exist(path):
    for words in invocations(path.read_text(encoding="utf-8")):
        command, rest = typer.main.get_command(app), list(words)
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"hostguide {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        options = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]} | {
            "--help"
        }
        assert {word for word in rest if word.startswith("--")} <= options, f"hostguide {' '.join(words)}"


def test_commands_are_found_in_documents():
    text = (
        "    .venv/bin/hostguide plot x\n`hostguide results R --top 3` and\n```\n$ hostguide train y\n```\nhostguide is"
    )
    assert invocations(text) == [["plot", "x"], ["train", "y"], ["results", "R", "--top", "3"]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_documents_link_to_exist(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (path.parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^[\w-]+$", "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)), re.MULTILINE)
    assert sorted([*listed, "index"]) == sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


def test_every_field_of_a_search_is_explained_and_no_other():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    known = set(fields(SearchConfig))
    assert not {name for name in known if not re.search(rf"`(?:\w+\.)*{name}`", text)}
    explained = {
        name.split(".")[-1]
        for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", cell)
    }
    assert not explained - known - set(SearchConfig.model_fields)
    assert all(f"`sampling.{name}`" in text for name, row in GENERATORS.items() if row.settings)


def fields(group):
    """Names of all fields that hold a value, of a settings class and of the settings in it.

    What may stand under ``sampling`` and ``tuning.sampling``, the generators say.
    """
    if hasattr(group, "__dataclass_fields__"):
        yield from group.__dataclass_fields__
        return
    for name, field in group.model_fields.items():
        if (group, name) == (Tuning, "sampling"):
            yield from (generator for generator, row in GENERATORS.items() if row.is_tunable)
            continue
        kinds = [row.settings for row in GENERATORS.values()] if name == "sampling" else [field.annotation]
        groups = [one for kind in kinds for one in groups_in(kind)]
        for one in groups:
            yield from fields(one)
        if not groups:
            yield name


def groups_in(kind):
    """Settings that a type is, or is made of."""
    if isinstance(kind, type) and (hasattr(kind, "__dataclass_fields__") or hasattr(kind, "model_fields")):
        yield kind
    for part in get_args(kind):
        yield from groups_in(part)


def test_settings_of_generators_are_fields_of_a_search():
    found = set(fields(SearchConfig))
    assert {
        "descend",
        "separation",
        "temperature",
        "resamples",
        "inpainting",
        "max_parents",
        "min_volume_ratio",
    } <= found
    assert not found & {"sampling", "sampler", "policy", "stop"}


# --- the files ----------------------------------------------------------------------------------------------------


def test_no_file_names_a_place_on_one_machine():
    place = "/" + "work" + "/"
    for path in project_files():
        if path.suffix in TEXT:
            assert not re.search(rf"(?<![\w.]){place}", path.read_text(encoding="utf-8")), name_of(path)


def test_no_file_is_large():
    for path in project_files():
        assert path.stat().st_size < 20e6, name_of(path)
