"""Where the files lie that the package ships."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent / "data"
