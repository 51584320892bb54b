"""The figures of the predictions for one split: reliability, lengths, numbers, confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_ft.report.plots import Figures, bars, finished, short
from nlp_ft.report.svg import INK, SERIES, drawing

MOST_CLASSES = 25


def figures_of_split(split: str, of: Mapping[str, Any]) -> Figures:
    """Draw the figures of the predictions for one split."""
    found: Figures = {}
    if of.get("calibration"):
        found["calibration"] = draw_calibration(split, of["calibration"])
    if of.get("coverage") and len(of["coverage"]["points"]) > 1:
        found["coverage"] = draw_coverage(split, of["coverage"])
    if len(of.get("by_length", [])) > 1:
        found["by_length"] = draw_by_length(split, of["by_length"])
    if of.get("numbers"):
        found["numbers"] = draw_numbers(split, of["numbers"])
    if of.get("confusion") and len(of["confusion"]["labels"]) <= MOST_CLASSES:
        found["confusion"] = draw_confusion(split, of["confusion"])
    return found


def draw_calibration(split: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """Draw how often predictions are right, by how sure the model is, with the rows of each bin below."""
    bins = of["bins"]
    sure, right = [one["mean_score"] for one in bins], [one["share_right"] for one in bins]
    alt = "Reliability diagram: " + "; ".join(
        f"of {one['rows']} predictions with a probability of about {one['mean_score']:.2f}, "
        f"{one['share_right']:.0%} are right"
        for one in bins
    )
    with drawing(height=3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="as sure as right")
        axes.plot(sure, right, color=SERIES[0], marker="o", markersize=4, label=split)
        for one in bins:
            axes.annotate(
                f"{one['rows']}",
                (one["mean_score"], one["share_right"]),
                (4, -10),
                textcoords="offset points",
                fontsize=7,
            )
        axes.set(xlabel="probability of the prediction", ylabel="share that is right", xlim=(0, 1.03), ylim=(0, 1.03))
        axes.legend(loc="upper left")
        caption = f"Reliability on {split}: mean probability {of['mean_score']:.3f}, right {of['share_right']:.3f}, "
        caption += f"calibration error {of['ece']:.3f}; the numbers are rows"
        return finished(figure, f"{split}-calibration", caption, f"{alt}.")


def draw_coverage(split: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the share of right predictions among the rows that are kept, by how many are kept."""
    kept, right = zip(*((one["kept"], one["share_right"]) for one in of["points"]))
    said = "; ".join(f"of the surest {one['kept']:.0%} of the rows, {one['share_right']:.1%}" for one in of["shown"])
    with drawing(height=3.2) as (figure, axes):
        axes.plot(kept, right, color=SERIES[0])
        axes.set(xlabel="share of rows kept, the surest first", ylabel="share of these that is right", xlim=(0, 1.03))
        axes.set_ylim(max(0.0, min(right) - 0.05), 1.01)
        caption = f"Right predictions on {split} if rows below a probability are left out"
        return finished(figure, f"{split}-coverage", caption, f"Line chart of the share that is right: {said}.")


def draw_by_length(split: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the share of right predictions by the length of the text."""
    names = [f"{one['from']} to {one['to']}" for one in groups]
    shares = [one["share_right"] for one in groups]
    said = "; ".join(f"{name} characters: {share:.0%}" for name, share in zip(names, shares))
    with drawing(height=0.6 + 0.34 * len(groups)) as (figure, axes):
        bars(axes, names, shares, "share of rows that are right")
        axes.set_ylabel("characters")
        caption = f"Right predictions on {split} by the length of the text"
        return finished(
            figure, f"{split}-by-length", caption, f"Bar chart of the share that is right by length. {said}."
        )


def draw_numbers(split: str, points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Draw predicted against true numbers."""
    true, predicted = zip(*points)
    low, high = min(*true, *predicted), max(*true, *predicted)
    with drawing(height=3.4) as (figure, axes):
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=":")
        axes.plot(true, predicted, color=SERIES[0], marker="o", markersize=2.5, linestyle="none", alpha=0.6)
        axes.set(xlabel="true", ylabel="predicted")
        alt = (
            f"Scatter plot of {len(points)} rows, true numbers from {min(true):.3g} to {max(true):.3g}, predicted from "
        )
        alt += f"{min(predicted):.3g} to {max(predicted):.3g}."
        return finished(figure, f"{split}-numbers", f"Predicted and true numbers on {split} ({len(points)} rows)", alt)


def draw_confusion(split: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the confusion matrix; a cell's shade is its share of the row's true label."""
    labels, counts = of["labels"], of["counts"]
    side = max(2.6, 0.3 * len(labels) + 0.075 * max(map(len, map(short, labels))) + 0.5)
    right = sum(line[place] for place, line in enumerate(counts))
    total = sum(map(sum, counts))
    alt = f"Confusion matrix of {len(labels)} labels: {right} of {total} on the diagonal. Most confused: "
    alt += ", ".join(f"{one['true']} taken for {one['predicted']} ({one['rows']})" for one in of["pairs"][:5]) or "none"
    with drawing(side, side) as (figure, axes):
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                if count:
                    share = count / sum(line)
                    color = SERIES[0] if row == column else SERIES[5]
                    # Never so dark that the number does not read, on a light page or a dark one.
                    axes.add_patch(_square(column, row, color, 0.08 + 0.47 * share))
                    axes.text(column, row, count, ha="center", va="center", fontsize=7, in_layout=False)
        places = range(len(labels))
        axes.set_xticks(places, map(short, labels), rotation=90, fontsize=8)
        axes.set_yticks(places, map(short, labels), fontsize=8)
        axes.tick_params(length=0)
        axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted", ylabel=of["title"])
        caption = (
            f"Confusion on {split}: blue is right, orange is wrong, a stronger colour is a larger share of the row"
        )
        return finished(figure, f"{split}-confusion", caption, f"{alt}.", is_wide=len(labels) > 8)


def _square(column: float, row: float, color: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=color, alpha=alpha, linewidth=0)
