"""What the figures of a report share: curves, bars, names, and what a finished figure is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nlp_ft.report.svg import SERIES, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P")
Figures = dict[str, dict[str, Any]]
Curve = Sequence[Sequence[float]]


def line(axes: "Axes", curve: Curve, number: int, label: str, marks: bool = False) -> None:
    """Draw a curve in the colour, dash and mark of its number."""
    style: dict[str, Any] = {"marker": MARKS[number % len(MARKS)], "markersize": 4} if marks else {}
    axes.plot(
        *zip(*curve),
        color=SERIES[number % len(SERIES)],
        linestyle=DASHES[(number + number // len(SERIES)) % len(DASHES)],
        label=label,
        **style,
    )


def bars(axes: "Axes", names: Sequence[str], shares: Sequence[float], label: str) -> None:
    """Draw a bar for each name, with its share as a number."""
    axes.barh(range(len(names)), shares, color=SERIES[0], height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 1.12))
    axes.grid(visible=False, axis="y")
    for place, share in enumerate(shares):
        axes.text(share + 0.01, place, f"{share:.0%}", va="center", fontsize=8)


def short(label: str) -> str:
    """Shorten a label to what fits beside a figure."""
    return label if len(label) <= 24 else f"{label[:22]}..."


def finished(figure: Any, name: str, caption: str, alt: str, is_wide: bool = False) -> dict[str, Any]:
    """Collect a figure with its caption and its alt text; a wide one scrolls on a phone."""
    return {"svg": svg_of(figure, name, alt), "caption": caption, "alt": alt, "is_wide": is_wide}
