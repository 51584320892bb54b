"""The progress of a run: a live bar in a terminal, or a line now and then in a log; a line for each evaluation."""

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from nlp_ft.screen import in_notebook, is_quiet, shows_bar
from nlp_ft.tables import short_rate, shortened, terminal_width, wrapped

SECONDS_BETWEEN_LINES = 15.0
NAME_WIDTH = 16
"""Most columns of a layer's name."""


class Progress:
    """Shows steps, phase, loss, the rate of one layer, speed and time left; one process shows them.

    Args:
        total_steps: optimizer steps of the run.
        steps_per_epoch: optimizer steps of an epoch.
        done: steps done before a resume.
        num_phases: number of phases of the run.
        enabled: False on every process but the main one.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, done: int, num_phases: int, enabled: bool) -> None:
        self.enabled = enabled and not is_quiet()
        self.total_steps, self.steps_per_epoch, self.num_phases = total_steps, steps_per_epoch, num_phases
        self.is_terminal = sys.stderr.isatty() or in_notebook()
        self._done, self._started = done, time.perf_counter()
        self._last_line = self._started
        self._bar = _bar_class()(
            total=total_steps,
            initial=done,
            ncols=terminal_width(),
            bar_format="{desc}|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
            disable=not (enabled and shows_bar() and self.is_terminal),
        )

    def step(
        self, global_step: int, phase: int, loss: float, rates: Mapping[str, float], examples_per_second: float
    ) -> None:
        """Show the steps up to `global_step`.

        Args:
            global_step: steps done.
            phase: number of the running phase, from 1.
            loss: mean training loss of the last steps.
            rates: name of each layer, from the head down -> its learning rate; 0 for a frozen layer.
            examples_per_second: rows a second since the start.
        """
        phase_of = f"phase {phase}/{self.num_phases}" if self.num_phases > 1 else ""
        name, rate = named_rate(rates)
        values = [f"loss {_number(loss)}", f"lr {shortened(name, NAME_WIDTH)} {short_rate(rate)}"]
        values.append(f"{examples_per_second:.0f} ex/s")
        self._bar.set_description_str(f"{phase_of} " if phase_of else "", refresh=False)
        self._bar.set_postfix_str(", ".join(values), refresh=False)
        self._bar.update(global_step - self._bar.n)
        now = time.perf_counter()
        if self.enabled and not self.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._started) / (global_step - self._done) * (self.total_steps - global_step)
            parts = [f"{self._step(global_step)}/{self.total_steps}", phase_of, *values]
            line, time_left = "  ".join(filter(None, parts)), f"  {tqdm.format_interval(left)} left"
            print(line + time_left if len(line + time_left) <= terminal_width() else line, flush=True)

    def evaluated(self, global_step: int, scores: Mapping[str, float], loss: float, is_best: bool) -> None:
        """Print a line for an evaluation, which stays on the screen; such lines are aligned with each other."""
        epochs = len(f"{self.total_steps / self.steps_per_epoch:.2f}")
        parts = [f"epoch {global_step / self.steps_per_epoch:{epochs}.2f}"]
        parts += [f"{name.replace('_', ' ')} {_number(value)}" for name, value in {**scores, "loss": loss}.items()]
        self.say(global_step, "  ".join([*parts, *(["best"] if is_best else [])]))

    def say(self, global_step: int, text: str) -> None:
        """Print what happened after a step, on a line above the bar."""
        if self.enabled:
            tqdm.write(wrapped(f"{self._step(global_step)}  {text}"), file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """Close the bar as it is."""
        self._bar.close()

    def _step(self, global_step: int) -> str:
        return f"step {global_step:>{len(str(self.total_steps))}}"


def _bar_class() -> "type[tqdm[Any]]":
    """The bar for this place: in a notebook with ipywidgets a widget, else a line of text."""
    if not in_notebook():
        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets, the bar of text is as good
        from tqdm.auto import tqdm as bar
    return bar


def named_rate(rates: Mapping[str, float]) -> tuple[str, float]:
    """Choose the layer whose rate is shown: the highest one below the head that trains, else the head."""
    training = {name: rate for name, rate in rates.items() if rate > 0}
    below_head = {name: rate for name, rate in training.items() if name != "head"}
    chosen = below_head or training or rates
    return next(iter(chosen.items()))


def shown_first(metric: str, shown: Sequence[str]) -> list[str]:
    """Choose the scores of an evaluation's line: the selected metric first, at most two; the loss has its own place."""
    return [name for name in dict.fromkeys([metric, *shown]) if name != "loss"][:2]


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
