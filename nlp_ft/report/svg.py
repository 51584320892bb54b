"""Turns a matplotlib figure into SVG for a page, with colours of the page, names of its own, and an alt text.

A figure is drawn with stand-ins, such as `INK`, which become variables of the page's style sheet, so that one figure
reads on a light and on a dark page. Matplotlib is imported where a figure is made: it takes a second.
"""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from nlp_ft.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#010203", "#010204"
"""Stand-ins for the colour of text and axes, and of grids and shades."""
SERIES = tuple(f"#0103{number:02x}" for number in range(6))
"""Stand-ins for the colours of curves: those of Okabe and Ito, which people with colour blindness can tell apart."""
DEPTHS = tuple(f"#0104{number:02x}" for number in range(9))
"""Stand-ins for the colours of layers, from the embeddings to the head: a scale that darkens in one direction."""
PIXELS_PER_POINT = 1.65
"""Size of a figure on a wide screen."""
VARIABLES = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES)},
    **{color: f"var(--depth-{number})" for number, color in enumerate(DEPTHS)},
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "nlp_ft",
}


@contextmanager
def drawing(width: float = 4.6, height: float = 2.8) -> "Iterator[tuple[Figure, Axes]]":
    """Make a figure of one plot, in inches, in the style of reports; nothing of matplotlib's own state changes."""
    with _quiet():
        import matplotlib
        from matplotlib.figure import Figure

        with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
            # A label may have signs that the font lacks; the browser has other fonts.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure = Figure(figsize=(width, height), layout="constrained")
            yield figure, figure.add_subplot()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep matplotlib from saying that it makes a cache of fonts, or where, inside the block."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def svg_of(figure: "Figure", name: str, alt: str) -> str:
    """Write a figure, inside `drawing`, as an SVG element.

    Args:
        figure: the figure.
        name: a name that no other figure of the page has.
        alt: what the figure shows, for people who do not see it.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    # The style of matplotlib would hold for the whole page.
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \g<1>", text)
    text = re.sub(r"\n\s*", "\n", text)
    _, head, rest = re.split(r"(<svg[^>]*>)", text, maxsplit=1)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    assert size is not None
    label = escape(printable(alt), quote=True)
    opened = (
        f'<svg viewBox="0 0 {size[1]} {size[2]}" style="max-width: {float(size[1]) * PIXELS_PER_POINT:.0f}px" '
        f'role="img" aria-label="{label}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'stroke-linejoin="round" stroke-linecap="butt">'
    )
    return f"{opened}{rest.strip()}"
