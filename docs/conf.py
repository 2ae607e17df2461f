"""How Sphinx builds the documentation: `make docs`. Pages are Markdown; the reference comes from docstrings."""

import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import generated  # noqa: E402

project = "hostguide"
version = release = installed("hostguide")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
suppress_warnings = ["docutils"]  # docstrings are plain text, see plain_text

myst_heading_anchors = 3  # links like configuration.md#policy-length-and-balance

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures as in the code would be long; docstrings give shapes and units
autodoc_default_options = {"members": True}
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"hostguide {release}"
html_show_copyright = False


def list_modules(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the docstrings of all modules of a package where a page says `@modules PACKAGE@`; commands have no API."""
    for package in ("model", "search"):
        paths = sorted((ROOT / package).rglob("*.py"))
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if path.stem != "__init__"]
        names = [name for name in names if not name.startswith(("search.cli", "search.commands"))]
        blocks = [f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in names]
        source[0] = source[0].replace(f"@modules {package}@", "\n".join(blocks))


def generate(app: Sphinx, page: str, source: list[str]) -> None:
    """Put what is made from the code where a page says `@commands@` or `@records@`."""
    for name in ("commands", "records"):
        if f"\n@{name}@\n" in source[0]:
            source[0] = source[0].replace(f"\n@{name}@\n", f"\n{getattr(generated, name)()}\n")


def plain_text(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are text with names in backticks, not reStructuredText: nothing else in them is a mark."""
    for number, line in enumerate(lines):
        pieces = re.split(r"(``.+?``|`[^`]+`)", line)  # text, name, text, ...
        pieces[::2] = [re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", text) for text in pieces[::2]]
        pieces[1::2] = [f"``{text.strip('`')}``" for text in pieces[1::2]]
        lines[number] = "".join(pieces)


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", list_modules)
    app.connect("source-read", generate)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon reads the sections
