"""Draw the floors of the package: `python scripts/draw_floors.py OUT.svg`.

They are read from tests/test_rooms.py, the arrows from the imports of the source.
"""

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.test_rooms import FLOOR_OF, FLOORS, ROOT, imports, room_of

BOX, GAP, HEIGHT, LEVEL, LEFT = 104, 14, 32, 78, 20


def arrows() -> list[tuple[str, str]]:
    """(room, room of a lower floor that it imports) of the whole package."""
    found = set()
    for path in sorted(ROOT.rglob("*.py")):
        own = room_of(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "vidtad" and len(parts) > 1 and parts[1] in FLOOR_OF and parts[1] != own:
                found.add((own, parts[1]))
    return sorted(found)


def draw(floors: Sequence[set[str]], edges: list[tuple[str, str]]) -> str:
    """SVG text: the ground floor at the bottom; an arrow for every room that another one, next below, imports."""
    widest = max(len(floor) for floor in floors)
    width = 2 * LEFT + 26 + widest * (BOX + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {LEVEL * len(floors) + 20}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    place = {}
    for number, floor in enumerate(floors):
        y = LEVEL * (len(floors) - 1 - number) + 24
        first = LEFT + 26 + (widest - len(floor)) * (BOX + GAP) // 2
        for index, room in enumerate(sorted(floor)):
            place[room] = (first + index * (BOX + GAP), y, number)
    for upper, lower in edges:
        (x, y, high), (other_x, other_y, low) = place[upper], place[lower]
        if high - low == 1:  # further ones would cover the rooms between
            parts.append(
                f'<line x1="{x + BOX // 2}" y1="{y + HEIGHT}" x2="{other_x + BOX // 2}" y2="{other_y}" '
                'stroke="#9aa5b1"/>'
            )
    for room, (x, y, number) in place.items():
        fill = "#e8f0f8" if number % 2 else "#f2f2f0"
        parts.append(f'<rect x="{x}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="4" fill="{fill}" stroke="#4e79a7"/>')
        parts.append(f'<text x="{x + BOX // 2}" y="{y + 21}" text-anchor="middle">{escape(room)}</text>')
    for number in range(len(floors)):
        y = LEVEL * (len(floors) - 1 - number) + 45
        parts.append(f'<text x="{LEFT}" y="{y}" text-anchor="middle" fill="#5f6b76">{number}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(FLOORS, arrows()))
