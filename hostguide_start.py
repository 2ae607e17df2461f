"""The program's entry, which imports its own `model`, `actors` and `search` whatever else has these names.

Python looks for modules on PYTHONPATH, and Ray's workers in the working folder too, before it looks where packages are
installed: a user's `model.py` there would be imported instead. (This file is not called `hostguide`, because so are
folders into which the repository is cloned.)
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

PACKAGES = ("model", "actors", "search")
HOME = Path(__file__).resolve().parent


def use_own_packages() -> None:
    """Import the packages that lie beside this file, so that nothing else of their names is found later.

    Raises:
        ImportError: something else of such a name is already imported.
    """
    for name in PACKAGES:
        if name not in sys.modules:
            _import(name)
        places = list(getattr(sys.modules[name], "__path__", []))
        if [Path(place).resolve() for place in places] != [HOME / name]:
            found = getattr(sys.modules[name], "__file__", None) or ", ".join(places)
            raise ImportError(
                f"{found} was imported as {name!r}, which is a package of hostguide too: rename it, or call "
                "hostguide_start.use_own_packages() before it is imported"
            )


def _import(name: str) -> None:
    spec = PathFinder.find_spec(name, [str(HOME)])
    assert spec is not None and spec.loader is not None, f"{HOME} lacks {name}"
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def main() -> None:
    """Run the command line."""
    use_own_packages()
    from search.cli import main as run

    run()


if __name__ == "__main__":
    main()
