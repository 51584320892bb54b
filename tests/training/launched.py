"""`scripts/train.py` for one recipe after the other, in processes that are started once: importing torch takes longest.

Its argument is a JSON list of the arguments of each call; it ends with the exit code of the last. The word `SIGTERM`
among them tells the last process alone to stop, within its fourth step; its exit code is printed.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from nlp_ft.training.loop import Loop

SCRIPT = Path(__file__).parents[2] / "scripts/train.py"


def run_script() -> object:
    """Its exit code. Not by `runpy`: that changes the arguments which the script hands to the processes it starts."""
    try:
        exec(compile(SCRIPT.read_text(), SCRIPT, "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as end:
        return end.code
    return None


def tell_last_process(self: Loop, batches: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Of the loop, in place of `_step`."""
    if self.state.global_step == 3 and not self.accelerator.is_main_process:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, batches)


if __name__ == "__main__":
    if "WORLD_SIZE" not in os.environ:
        # Starts the processes that the launcher did not, each with this file.
        run_script()
    # The command would end the process group, which the next call needs.
    PartialState.destroy_process_group = lambda self, group=None: None
    step = Loop._step
    for arguments in json.loads(sys.argv[1]):
        sys.argv = [str(SCRIPT), *(word for word in arguments if word != "SIGTERM")]
        Loop._step = tell_last_process if "SIGTERM" in arguments else step  # type: ignore[method-assign, assignment]
        code = run_script()
        if "SIGTERM" in arguments:
            print(f"process {os.environ['RANK']} stopped with {code}", flush=True)
    sys.exit(code)  # type: ignore[arg-type]
