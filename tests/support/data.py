"""Where real data lie: what ships with the tests, and the whole set beside the repository where there is one."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
