"""Cards of verified crystals for the report: grade, reasons, and phonon bands as a drawing that follows the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from model.verification.verdict import Grade

WIDTH, HEIGHT, LEFT, BELOW = 260, 130, 28, 16  # of the drawing; room for numbers and for the special points
GOOD = (Grade.WORTH_DFT, Grade.KNOWN)


def cards(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the template shows of each verified crystal."""
    return [
        {
            "candidate": one["name"],
            "formula": one["formula"],
            "space_group": one.get("space_group", ""),
            "grade": one["grade"],
            "good": one["grade"] in GOOD,
            "reasons": one["verdict"].partition(": ")[2].split("; "),
            "type": one.get("type_text", ""),
            "bulk_modulus": one.get("bulk_modulus"),
            "distorts_to": one.get("distorts_to", []),
            "bands": bands_drawing(one["bands"]) if one.get("bands") else "",
        }
        for one in records
    ]


def reached_by_exchange(records: Sequence[Mapping[str, Any]]) -> str:
    """How many of the new crystals plain ion exchange would not have found."""
    new = [one for one in records if one["grade"] != "failed" and one["known"] is None]
    return f"{sum(not one['ion_exchange'] for one in new)} of {len(new)} new ones verified"


def bands_drawing(bands: Mapping[str, Any]) -> Markup:
    """Phonon bands as SVG in the colours of the page; imaginary frequencies, below 0, in that of guests."""
    places, branches = bands["places"], bands["frequencies"]
    low, high = min(0.0, min(map(min, branches))), max(map(max, branches))
    across, up = (WIDTH - LEFT - 4) / (places[-1] or 1.0), (HEIGHT - BELOW - 8) / ((high - low) or 1.0)

    def x(place: float) -> str:
        return f"{LEFT + place * across:.1f}"

    def y(frequency: float) -> str:
        return f"{4 + (high - frequency) * up:.1f}"

    parts = [
        f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{y(high)}" y2="{y(low)}" class="grid"/>'
        f'<text x="{x(tick)}" y="{HEIGHT - 4}" text-anchor="middle">{label}</text>'
        for tick, label in _spaced(bands, 14 / across)
    ]
    parts.append(f'<line x1="{LEFT}" x2="{x(places[-1])}" y1="{y(0)}" y2="{y(0)}" class="zero"/>')
    for value in {0.0, round(high, 1), round(low, 1)}:
        parts.append(f'<text x="{LEFT - 3}" y="{float(y(value)) + 3:.1f}" text-anchor="end">{value:g}</text>')
    for branch in branches:
        points = " ".join(f"{x(place)},{y(frequency)}" for place, frequency in zip(places, branch, strict=True))
        kind = ' class="imaginary"' if min(branch) < -0.1 else ""
        parts.append(f'<polyline points="{points}"{kind}/>')
    title = "<title>Phonon bands, THz</title>"
    return Markup(f'<svg class="bands" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{title}{"".join(parts)}</svg>')


def _spaced(bands: Mapping[str, Any], least: float) -> list[tuple[float, str]]:
    """The special points at least so far apart that their names do not overlap."""
    shown: list[tuple[float, str]] = []
    for tick, label in zip(bands["ticks"], bands["labels"], strict=True):
        if not shown or tick - shown[-1][0] >= least:
            shown.append((tick, label.replace("G", "Γ").replace(",", "|")))
    return shown
