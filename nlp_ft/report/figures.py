"""The figures of one run and of several, drawn from the dictionary of a report: each with a caption and an alt text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nlp_ft.report.plots import MARKS, Curve, Figures, bars, finished, line, short
from nlp_ft.report.split_figures import figures_of_split
from nlp_ft.report.svg import DEPTHS, FAINT, SERIES, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LAYERS = len(DEPTHS)
RIGHT = ("accuracy", "exact_match")
"""Scores that are the share of right predictions, which the confidence should equal."""
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
    if len(curves["validation"].get("confidence", [])) > 1:
        found["confidence"] = draw_confidence(curves["validation"], phases)
    of_layers = {"learning_rates": curves["learning_rates"], **run["layers"]}
    for quantity, layers in of_layers.items():
        if any(len(curve) > 1 for curve in layers.values()):
            found[quantity] = draw_layers(quantity, layers, phases)
    if run["probe"] and sum(one["score"] is not None for one in run["probe"]["layers"]) > 1:
        found["probe"] = draw_probe(run["probe"])
    if run["step_time"]:
        found["step_time"] = draw_step_time(run["step_time"])
    for split, of in run["splits"].items():
        found |= {f"{split}_{key}": figure for key, figure in figures_of_split(split, of).items()}
    return found


def draw_loss(run: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the training loss, and that on validation, with the phases shaded."""
    loss, validation = run["curves"]["loss"], run["curves"]["validation"].get("loss", [])
    alt = f"Line chart: the training loss goes from {loss[0][1]:.3g} to {loss[-1][1]:.3g} at step {loss[-1][0]}."
    with drawing() as (figure, axes):
        line(axes, loss, 0, "train")
        if validation:
            line(axes, validation, 1, "validation", marks=True)
            alt += f" On validation it is {validation[-1][1]:.3g} at the end, {_lowest(validation)}."
        highest = max(value for _, value in [*loss, *validation])
        axes.set(xlabel="step", ylabel="loss", xlim=(0, None), ylim=(0, 1.05 * highest))
        axes.legend()
        _shade(axes, run["phases"], loss[-1][0])
        return finished(figure, "loss", "Loss on train and on validation", alt)


def draw_score(metric: str, curve: Curve, phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the score on validation that chooses the weights."""
    name = metric.replace("_", " ")
    alt = f"Line chart: {name} on validation goes from {curve[0][1]:.4f} to {curve[-1][1]:.4f}, the highest is "
    alt += f"{max(value for _, value in curve):.4f}."
    with drawing() as (figure, axes):
        line(axes, curve, 1, name, marks=True)
        axes.set(xlabel="step", ylabel=name, xlim=(0, None))
        _shade(axes, phases, curve[-1][0])
        return finished(figure, "score", f"{name.capitalize()} on validation", alt)


def draw_confidence(validation: Mapping[str, Curve], phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the mean probability of the predictions on validation, beside the share of them that is right."""
    shown = {name: validation[name] for name in ("confidence", *RIGHT) if name in validation}
    said = [f"{name.replace('_', ' ')} goes from {of[0][1]:.4f} to {of[-1][1]:.4f}" for name, of in shown.items()]
    with drawing() as (figure, axes):
        for number, (name, curve) in enumerate(shown.items()):
            line(axes, curve, number, name.replace("_", " "), marks=True)
        axes.set(xlabel="step", ylabel="share", xlim=(0, None))
        axes.legend()
        _shade(axes, phases, shown["confidence"][-1][0])
        caption = "Confidence on validation: mean probability of the predictions, and how many of them are right"
        return finished(figure, "confidence", caption, f"Line chart on validation: {'; '.join(said)}.")


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
        return finished(figure, quantity, caption + left_out, alt)


def draw_probe(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the score of a probe on each layer, with its standard error; the chosen one is filled."""
    name = probe["metric"].replace("_", " ")
    layers = [one for one in probe["layers"] if one["score"] is not None]
    said = "; ".join(f"{one['name']}: {one['score']:.4f} ± {one['standard_error']:.4f}" for one in layers)
    with drawing() as (figure, axes):
        for place, one in enumerate(layers):
            color = SERIES[0]
            axes.errorbar(
                [place],
                [one["score"]],
                yerr=[one["standard_error"]],
                color=color,
                marker="o",
                markersize=7 if one["chosen"] else 5,
                markerfacecolor=color if one["chosen"] else "none",
                capsize=3,
            )
        axes.set_xticks(range(len(layers)), [one["name"] for one in layers], rotation=45, ha="right")
        axes.set(ylabel=f"{name} in cross-validation")
        caption = f"{name.capitalize()} of the probe by layer, ± one standard error; the chosen features are filled"
        return finished(figure, "probe", caption, f"Dot plot of {name} in cross-validation. {said}.")


def draw_step_time(shares: Mapping[str, float]) -> dict[str, Any]:
    """Draw the share of each part in the time of a step."""
    alt = "Bar chart of the time of a step: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items()) + "."
    with drawing(height=0.5 + 0.3 * len(shares)) as (figure, axes):
        bars(axes, list(shares), list(shares.values()), "share of the step's time")
        return finished(figure, "step_time", "Where the time of a step goes", alt)


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
        axes.set_yticks(range(len(groups)), [short(group["name"]) for group in groups])
        axes.set(xlabel=name, ylim=(len(groups) - 0.5, -0.5))
        caption = f"{name.capitalize()} on {split}: a dot a run, a line the 95 % interval of the mean"
        return finished(figure, "dots", caption, f"Dot plot of {name}. {said}.")


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
            line(axes, list(zip(steps, means)), place, short(group["name"]))
            if len(group["runs"]) > 1:
                axes.fill_between(steps, lows, highs, color=SERIES[place % len(SERIES)], alpha=0.2, linewidth=0)
            said.append(f"{group['name']} ends at {means[-1]:.4f}")
        axes.set(xlabel="step", ylabel=name)
        axes.legend()
        caption = "Training loss" if key == "loss" else f"{name.removeprefix('validation ').capitalize()} on validation"
        return finished(
            figure, key.replace("_", "-"), caption, f"Line chart of {name} over the steps. {'; '.join(said)}."
        )


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


def _lowest(curve: Curve) -> str:
    step, value = min(curve, key=lambda point: point[1])
    return f"the lowest is {value:.3g} at step {step}"
