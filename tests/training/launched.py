"""`scripts/train.py` for one recipe after the other, in processes that are started once: importing torch takes longest.

Its argument is a JSON list of the arguments of each call; it ends with the exit code of the last.
"""

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState

SCRIPT = Path(__file__).parents[2] / "scripts/train.py"


def run_script() -> object:
    """Its exit code. Not by `runpy`: that changes the arguments which the script hands to the processes it starts."""
    try:
        exec(compile(SCRIPT.read_text(), SCRIPT, "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as end:
        return end.code
    return None


if __name__ == "__main__":
    if "WORLD_SIZE" not in os.environ:
        # Starts the processes that the launcher did not, each with this file.
        run_script()
    # The command would end the process group, which the next call needs.
    PartialState.destroy_process_group = lambda self, group=None: None  # type: ignore[method-assign]
    for arguments in json.loads(sys.argv[1]):
        sys.argv = [str(SCRIPT), *arguments]
        code = run_script()
    sys.exit(code)  # type: ignore[arg-type]
