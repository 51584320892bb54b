"""The progress of a run: a live bar in a terminal, or a line now and then in a log."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows steps, loss, rate, speed and the last metric; one process shows them.

    Args:
        total_steps: optimizer steps of the run.
        done: steps done before a resume.
        enabled: False on every process but the main one.
    """

    def __init__(self, total_steps: int, done: int, enabled: bool) -> None:
        self.enabled = enabled
        self.total_steps = total_steps
        self.is_terminal = sys.stderr.isatty()
        self.metric = ""
        self._last_line = time.perf_counter()
        self._bar = tqdm(total=total_steps, initial=done, unit="step", disable=not (enabled and self.is_terminal))

    def step(self, global_step: int, loss: float, lr: float, examples_per_second: float) -> None:
        """Show the steps up to `global_step`; `lr` is the highest rate of the layers."""
        self._bar.update(global_step - self._bar.n)
        self._bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.1e}, {examples_per_second:.0f} examples/s{self.metric}")
        now = time.perf_counter()
        if self.enabled and not self.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(
                f"step {global_step}/{self.total_steps}  loss {loss:.4f}  lr {lr:.1e}  "
                f"{examples_per_second:.0f} examples/s",
                flush=True,
            )

    def evaluated(self, global_step: int, epoch: float, name: str, value: float, loss: float, is_best: bool) -> None:
        """Print a line for an evaluation, which stays on the screen."""
        self.metric = f", {name} {value:.4f}"
        self.say(
            f"step {global_step}/{self.total_steps}  epoch {epoch:.2f}  validation {name} {value:.4f}  loss {loss:.4f}"
            + ("  (best so far)" if is_best else "")
        )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.enabled:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """Close the bar as it is."""
        self._bar.close()
