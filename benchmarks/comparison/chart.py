"""Bars as SVG. It is a dozen rectangles and texts, so it is written here: a library would bring its own style and script,
and a browser draws this one in the colours of the page, light or dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.comparison.table import Range
from benchmarks.report import number

WIDTH, LEFT, RIGHT = 720, 190, 90
ROW, BAR, TOP = 22, 14, 34
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-weight:600;fill:#57606a}"
    ".bar{fill:#8c959f}.ours{fill:#2f81f7}.range{stroke:#57606a;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text,.title{fill:#adbac7}.range{stroke:#adbac7}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One queue in a chart."""

    name: str
    value: Range
    ours: bool = False


def svg(title: str, bars: Sequence[Bar]) -> str:
    """Return a chart of horizontal bars, with a line from the least to the greatest round."""
    most = max((max(bar.value.samples) for bar in bars), default=1) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + ROW * len(bars) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
    ]
    for index, bar in enumerate(bars):
        top = TOP + ROW * index
        middle = top + BAR / 2
        least, greatest = (LEFT + scale * value for value in (min(bar.value.samples), max(bar.value.samples)))
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4:g}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="bar{" ours" if bar.ours else ""}" x="{LEFT}" y="{top}" '
            f'width="{scale * bar.value.median:.1f}" height="{BAR}"/>',
            f'<line class="range" x1="{least:.1f}" x2="{greatest:.1f}" y1="{middle:g}" y2="{middle:g}"/>',
            f'<text x="{greatest + 6:.1f}" y="{middle + 4:g}">{number(bar.value.median)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
