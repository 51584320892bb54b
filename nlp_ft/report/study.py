"""Writes the report of a comparison of strategies: one file of HTML, from the dictionary that the comparison makes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_ft.report.compare import band
from nlp_ft.report.figures import draw_bands
from nlp_ft.report.plots import MARKS, Figures, finished
from nlp_ft.report.run_files import METRICS, read_records
from nlp_ft.report.svg import FAINT, INK, SERIES, drawing
from nlp_ft.report.write import render, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOGARITHMIC = 8.0
"""Factor between the longest and the shortest time, from which their axis is logarithmic."""
PLACES = ((6, 5), (6, -11), (-6, 5), (-6, -11), (6, 15), (6, -21))
"""Where the name of a point may stand beside it, in points; the first free one is taken."""


def write_study(page: Mapping[str, Any], file: Path) -> None:
    """Write the report of a comparison.

    Args:
        page: `title`, `metric`, `answer` and `remarks` (sentences), `tables` (`title`, `header`, `rows`), `points` (see
            `draw_front`), `runs` (strategy -> its run folders), `folder`, `command`, `about` and `versions`.
        file: the file to write; it is replaced.

    Raises:
        RunFolderError: a run folder is damaged, or the file cannot be written.
    """
    figures: Figures = {}
    if len(page["points"]) > 1:
        figures["front"] = draw_front(page["points"], page["metric"])
    groups = [_group(name, folders, page["metric"]) for name, folders in page["runs"].items()]
    for key, curve in (("score", page["metric"]), ("loss", "loss")):
        if any(len(group["curves"][f"validation {curve}"]) > 1 for group in groups):
            figures[f"validation_{key}"] = draw_bands(f"validation_{key}", f"validation {curve}", groups)
    save(render("study.html.j2", title=page["title"], page=page, figures=figures), file)


def draw_front(points: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Draw scores against seconds, with their intervals; a line joins the Pareto front, dominated points are hollow.

    Args:
        points: `name`, `score`, `interval` (or None), `seconds` and `kind`: `front`, `dominated` or `cheap`.
        metric: name of the score.
    """
    name, seconds = metric.replace("_", " "), [point["seconds"] for point in points]
    with drawing(width=7.2, height=3.8) as (figure, axes):
        front = sorted((one["seconds"], one["score"]) for one in points if one["kind"] == "front")
        axes.plot(*zip(*front), color=FAINT, linewidth=2, zorder=1)
        for place, point in enumerate(points):
            color = INK if point["kind"] == "cheap" else SERIES[place % len(SERIES)]
            filled = color if point["kind"] == "front" else "none"
            if point["interval"]:
                axes.plot([point["seconds"]] * 2, point["interval"], color=color, linewidth=1)
            mark = "x" if point["kind"] == "cheap" else MARKS[place % len(MARKS)]
            axes.plot(
                point["seconds"], point["score"], color=color, marker=mark, markerfacecolor=filled, linestyle="none"
            )
        if max(seconds) > LOGARITHMIC * max(min(seconds), 1e-9):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(x=0.12, y=0.1)
        axes.set(xlabel="seconds of training", ylabel=f"{name} on test")
        figure.draw_without_rendering()
        _label(axes, figure.dpi / 72, points)
        said = "; ".join(
            f"{one['name']} {one['score']:.4f} in {one['seconds']:.3g} s ({one['kind']})" for one in points
        )
        caption = f"{name.capitalize()} against seconds: full marks are on the Pareto front, hollow ones are dominated"
        return finished(figure, "front", caption, f"Scatter plot of {name} against seconds. {said}.", is_wide=True)


def _label(axes: "Axes", per_point: float, points: Sequence[Mapping[str, Any]]) -> None:
    """Write the name of each point beside it, where no other name stands; `per_point` pixels are a point."""
    taken: list[tuple[float, float]] = []
    for point in points:
        x, y = (value / per_point for value in axes.transData.transform((point["seconds"], point["score"])))
        width = 5.0 * len(point["name"])
        starts = [(x + dx - (width if dx < 0 else 0), y + dy) for dx, dy in PLACES]
        free = [place for place, start in enumerate(starts) if not any(_overlap(start, width, one) for one in taken)]
        place = free[0] if free else 0
        taken += [(starts[place][0] + part, starts[place][1]) for part in range(0, int(width) + 1, 10)]
        side = "right" if PLACES[place][0] < 0 else "left"
        axes.annotate(
            point["name"],
            (point["seconds"], point["score"]),
            PLACES[place],
            textcoords="offset points",
            ha=side,
            fontsize=8,
        )


def _overlap(start: tuple[float, float], width: float, other: tuple[float, float]) -> bool:
    return start[0] - 10 < other[0] < start[0] + width and abs(start[1] - other[1]) < 10


def _group(name: str, folders: Sequence[str], metric: str) -> dict[str, Any]:
    """Join the validation curves of the runs of a strategy."""
    of_runs = [[one for one in read_records(Path(folder) / METRICS) if "validation" in one] for folder in folders]
    curves = {
        f"validation {key}": band(
            [[[one["step"], one["validation"][key]] for one in run if key in one["validation"]] for run in of_runs]
        )
        for key in dict.fromkeys((metric, "loss"))
    }
    return {"name": name, "runs": list(folders), "curves": curves}
