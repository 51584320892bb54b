"""The figures of a report, drawn from its dictionary as SVG: each with a caption, and with an alt text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nlp_ft.report.svg import DEPTHS, FAINT, INK, SERIES, drawing, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LAYERS = len(DEPTHS)
MOST_CLASSES = 25
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P")
Figures = dict[str, dict[str, Any]]
Curve = Sequence[Sequence[float]]
OF_LAYERS = {
    "learning_rates": ("Learning rate of each layer", "learning rate"),
    "gradient_norm": ("Gradient norm of each layer, before clipping", "gradient norm"),
    "update_ratio": ("Size of an update / size of the weights", "update / weights"),
    "drift": ("Drift: change since the start / size at the start", "drift"),
}


def figures_of_run(run: Mapping[str, Any]) -> Figures:
    """Draw the figures of one run: key -> `svg`, `caption` and `alt`; what the run does not hold is left out."""
    found: Figures = {}
    curves, phases = run["curves"], run["phases"]
    if len(curves["loss"]) > 1:
        found["loss"] = draw_loss(run)
    score = curves["validation"].get(run["metric"], [])
    if len(score) > 1 and run["metric"] != "loss":
        found["score"] = draw_score(run["metric"], score, phases)
    of_layers = {"learning_rates": curves["learning_rates"], **run["layers"]}
    for quantity, layers in of_layers.items():
        if any(len(curve) > 1 for curve in layers.values()):
            found[quantity] = draw_layers(quantity, layers, phases)
    if run["step_time"]:
        found["step_time"] = draw_step_time(run["step_time"])
    for split, of in run["splits"].items():
        found |= {f"{split}_{key}": figure for key, figure in figures_of_split(split, of).items()}
    return found


def figures_of_split(split: str, of: Mapping[str, Any]) -> Figures:
    """Draw the figures of the predictions for one split."""
    found: Figures = {}
    if of.get("calibration"):
        found["calibration"] = draw_calibration(split, of["calibration"])
    if len(of.get("by_length", [])) > 1:
        found["by_length"] = draw_by_length(split, of["by_length"])
    if of.get("numbers"):
        found["numbers"] = draw_numbers(split, of["numbers"])
    if of.get("confusion") and len(of["confusion"]["labels"]) <= MOST_CLASSES:
        found["confusion"] = draw_confusion(split, of["confusion"])
    return found


def draw_loss(run: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the training loss, and that on validation, with the phases shaded."""
    loss, validation = run["curves"]["loss"], run["curves"]["validation"].get("loss", [])
    alt = f"Line chart: the training loss goes from {loss[0][1]:.3g} to {loss[-1][1]:.3g} at step {loss[-1][0]}."
    with drawing() as (figure, axes):
        _line(axes, loss, 0, "train")
        if validation:
            _line(axes, validation, 1, "validation", marks=True)
            alt += f" On validation it is {validation[-1][1]:.3g} at the end, {_lowest(validation)}."
        highest = max(value for _, value in [*loss, *validation])
        axes.set(xlabel="step", ylabel="loss", xlim=(0, None), ylim=(0, 1.05 * highest))
        axes.legend()
        _shade(axes, run["phases"], loss[-1][0])
        return _figure(figure, "loss", "Loss on train and on validation", alt)


def draw_score(metric: str, curve: Curve, phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the score on validation that chooses the weights."""
    name = metric.replace("_", " ")
    alt = f"Line chart: {name} on validation goes from {curve[0][1]:.4f} to {curve[-1][1]:.4f}, the highest is "
    alt += f"{max(value for _, value in curve):.4f}."
    with drawing() as (figure, axes):
        _line(axes, curve, 1, name, marks=True)
        axes.set(xlabel="step", ylabel=name, xlim=(0, None))
        _shade(axes, phases, curve[-1][0])
        return _figure(figure, "score", f"{name.capitalize()} on validation", alt)


def draw_layers(quantity: str, layers: Mapping[str, Curve], phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw a quantity of each layer over the steps, the head first; of many layers, some that are evenly spread."""
    caption, unit = OF_LAYERS[quantity]
    names = _spread(list(layers))
    last = {name: layers[name][-1][1] for name in names}
    alt = f"Line chart of {unit} by layer; at the end: "
    alt += f"{', '.join(f'{name} {value:.2g}' for name, value in last.items())}."
    with drawing(height=3.2) as (figure, axes):
        for place, name in enumerate(names):
            depth = round((len(names) - 1 - place) * (len(DEPTHS) - 1) / max(1, len(names) - 1))
            shown = [(step, value if value > 0 else float("nan")) for step, value in layers[name]]
            style: dict[str, Any] = {"linestyle": "--"} if place == 0 and len(names) > 1 else {}
            axes.plot(*zip(*shown), color=DEPTHS[depth], label=name, **style)
        axes.set(xlabel="step", ylabel=unit, xlim=(0, None), yscale="log")
        _few_decades(axes)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.locator_params(axis="x", nbins=5)
        end = max(curve[-1][0] for curve in layers.values())
        _shade(axes, phases, end)
        figure.legend(loc="outside right center", handlelength=1.2)
        left_out = f" ({len(names)} of {len(layers)} layers)" if len(names) < len(layers) else ""
        return _figure(figure, quantity, caption + left_out, alt)


def draw_step_time(shares: Mapping[str, float]) -> dict[str, Any]:
    """Draw the share of each part in the time of a step."""
    alt = "Bar chart of the time of a step: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items()) + "."
    with drawing(height=0.5 + 0.3 * len(shares)) as (figure, axes):
        _bars(axes, list(shares), list(shares.values()), "share of the step's time")
        return _figure(figure, "step_time", "Where the time of a step goes", alt)


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
        return _figure(figure, f"{split}-calibration", caption, f"{alt}.")


def draw_by_length(split: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the share of right predictions by the length of the text."""
    names = [f"{one['from']} to {one['to']}" for one in groups]
    shares = [one["share_right"] for one in groups]
    said = "; ".join(f"{name} characters: {share:.0%}" for name, share in zip(names, shares))
    with drawing(height=0.6 + 0.34 * len(groups)) as (figure, axes):
        _bars(axes, names, shares, "share of rows that are right")
        axes.set_ylabel("characters")
        caption = f"Right predictions on {split} by the length of the text"
        return _figure(
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
        return _figure(figure, f"{split}-numbers", f"Predicted and true numbers on {split} ({len(points)} rows)", alt)


def draw_confusion(split: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the confusion matrix; a cell's shade is its share of the row's true label."""
    labels, counts = of["labels"], of["counts"]
    side = max(2.6, 0.3 * len(labels) + 0.075 * max(map(len, map(_short, labels))) + 0.5)
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
        axes.set_xticks(places, map(_short, labels), rotation=90, fontsize=8)
        axes.set_yticks(places, map(_short, labels), fontsize=8)
        axes.tick_params(length=0)
        axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted", ylabel=of["title"])
        caption = (
            f"Confusion on {split}: blue is right, orange is wrong, a stronger colour is a larger share of the row"
        )
        return _figure(figure, f"{split}-confusion", caption, f"{alt}.", is_wide=len(labels) > 8)


def figures_of_runs(runs: Mapping[str, Any]) -> Figures:
    """Draw the figures of a comparison: the scores of all groups, and their curves with bands over the seeds."""
    groups, metric = runs["groups"], runs["metric"]
    found: Figures = {}
    if any(group["values"] for group in groups):
        found["dots"] = draw_dots(groups, metric, runs["split"])
    curves = {"loss": "loss", "validation_loss": "validation loss", "validation_score": f"validation {metric}"}
    for key, curve in curves.items():
        if any(len(group["curves"].get(curve, [])) > 1 for group in groups) and (key, metric) != (
            "validation_score",
            "loss",
        ):
            found[key] = draw_bands(key, curve, groups)
    return found


def draw_dots(groups: Sequence[Mapping[str, Any]], metric: str, split: str) -> dict[str, Any]:
    """Draw the score of each run as a dot, and the mean of each group with its interval."""
    name = metric.replace("_", " ")
    said = "; ".join(f"{group['name']}: {', '.join(f'{value:.4f}' for value in group['values'])}" for group in groups)
    with drawing(height=0.9 + 0.35 * len(groups)) as (figure, axes):
        for place, group in enumerate(groups):
            color = SERIES[place % len(SERIES)]
            if group["interval"]:
                axes.plot(group["interval"], [place, place], color=color, linewidth=2)
                axes.plot([group["mean"]], [place], color=color, marker="|", markersize=12)
            if group["values"]:
                mark = MARKS[place % len(MARKS)]
                axes.plot(
                    group["values"],
                    [place] * len(group["values"]),
                    color=color,
                    marker=mark,
                    markersize=5,
                    linestyle="none",
                )
        axes.set_yticks(range(len(groups)), [_short(group["name"]) for group in groups])
        axes.set(xlabel=name, ylim=(len(groups) - 0.5, -0.5))
        caption = f"{name.capitalize()} on {split}: a dot a run, a line the 95 % interval of the mean"
        return _figure(figure, "dots", caption, f"Dot plot of {name}. {said}.")


def draw_bands(key: str, curve: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw a curve of each group, with a band from its lowest to its highest seed."""
    name = curve.replace("_", " ")
    said = []
    with drawing(height=3.0) as (figure, axes):
        for place, group in enumerate(groups):
            points = group["curves"].get(curve, [])
            if not points:
                continue
            steps, means, lows, highs = zip(*points)
            _line(axes, list(zip(steps, means)), place, _short(group["name"]))
            if len(group["runs"]) > 1:
                axes.fill_between(steps, lows, highs, color=SERIES[place % len(SERIES)], alpha=0.2, linewidth=0)
            said.append(f"{group['name']} ends at {means[-1]:.4f}")
        axes.set(xlabel="step", ylabel=name)
        axes.legend()
        caption = "Training loss" if key == "loss" else f"{name.removeprefix('validation ').capitalize()} on validation"
        return _figure(
            figure, key.replace("_", "-"), caption, f"Line chart of {name} over the steps. {'; '.join(said)}."
        )


def _line(axes: "Axes", curve: Curve, number: int, label: str, marks: bool = False) -> None:
    style: dict[str, Any] = {"marker": MARKS[number % len(MARKS)], "markersize": 4} if marks else {}
    axes.plot(
        *zip(*curve),
        color=SERIES[number % len(SERIES)],
        linestyle=DASHES[(number + number // len(SERIES)) % len(DASHES)],
        label=label,
        **style,
    )


def _bars(axes: "Axes", names: Sequence[str], shares: Sequence[float], label: str) -> None:
    axes.barh(range(len(names)), shares, color=SERIES[0], height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 1.12))
    axes.grid(visible=False, axis="y")
    for place, share in enumerate(shares):
        axes.text(share + 0.01, place, f"{share:.0%}", va="center", fontsize=8)


def _shade(axes: "Axes", phases: Sequence[Mapping[str, Any]], end: float) -> None:
    """Shade every second phase, and write the number of each at its top."""
    if len(phases) < 2:
        return
    borders = [*(phase["step"] for phase in phases), end]
    for number, (start, stop) in enumerate(pairwise(borders), start=1):
        if number % 2 == 0:
            axes.axvspan(start, stop, color=FAINT, alpha=0.5, linewidth=0)
        place = ((start + stop) / 2, 1.0)
        axes.annotate(f"{number}", place, xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=7)


def _few_decades(axes: "Axes") -> None:
    """Label 2 and 5 on a logarithmic axis, too, where it has few powers of ten."""
    low, high = axes.get_ylim()
    if low > 0 and high / low < 100:
        from matplotlib.ticker import LogLocator

        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def _spread(names: Sequence[str]) -> list[str]:
    if len(names) <= MOST_LAYERS:
        return list(names)
    step = (len(names) - 1) / (MOST_LAYERS - 1)
    return [names[round(place * step)] for place in range(MOST_LAYERS)]


def _square(column: float, row: float, color: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=color, alpha=alpha, linewidth=0)


def _short(label: str) -> str:
    return label if len(label) <= 24 else f"{label[:22]}..."


def _lowest(curve: Curve) -> str:
    step, value = min(curve, key=lambda point: point[1])
    return f"the lowest is {value:.3g} at step {step}"


def _figure(figure: Any, name: str, caption: str, alt: str, is_wide: bool = False) -> dict[str, Any]:
    return {"svg": svg_of(figure, name, alt), "caption": caption, "alt": alt, "is_wide": is_wide}
