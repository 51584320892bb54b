"""The plot of a range test: the loss of each step over its rate, the mean around it, and the suggestion."""

from pathlib import Path
from typing import TYPE_CHECKING

from nlp_ft.errors import DataError, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nlp_ft.study.find_lr import FoundRates, RangeTest

ENDINGS = (".svg", ".png", ".pdf")
# Colours of Okabe and Ito, which people with colour blindness can tell apart.
BLUE, RED = "#0072b2", "#d55e00"


def check_plot(file: str) -> None:
    """Check, before the tests run, that a plot can be written to a file. Raises: DataError."""
    path = Path(file)
    if path.suffix.lower() not in ENDINGS or file.endswith(("/", "\\")) or path.is_dir():
        raise DataError(f"--plot: the file's name must end in {', '.join(ENDINGS)}, got {printable(file)}")
    if not path.absolute().parent.is_dir():
        raise DataError(f"--plot: {printable(file)}: No such file or directory")


def write_plot(found: "FoundRates", file: str) -> None:
    """Draw the test of the head and that of the encoder, if there is one, side by side; a file there is replaced.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    tests = {"head": found.head, "encoder": found.encoder}
    shown = {name: test for name, test in tests.items() if test is not None}
    figure = Figure(figsize=(5 * len(shown), 3.6), layout="constrained")
    for axes, (name, test) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items()):
        _draw(axes, name, test)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        Path(file).unlink(missing_ok=True)
        raise DataError(f"--plot: {printable(file)}: {error.strerror or error}") from None


def _draw(axes: "Axes", name: str, test: "RangeTest") -> None:
    axes.plot(test.rates, test.losses, ".", color="0.7", label="loss of a step")
    axes.plot(test.rates, test.smoothed, color=BLUE, label="mean around it")
    if test.suggestion is not None:
        axes.axvline(test.suggestion, color=RED, linestyle="--", label=f"suggestion {test.suggestion:g}")
    # Where the loss breaks, it leaves the picture.
    until_best = test.losses[: test.best + 1]
    limits = (0.9 * min(until_best), 1.2 * max(until_best))
    axes.set(title=name, xscale="log", xlabel="learning rate", ylabel="training loss", ylim=limits)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
