"""Runs a command in a terminal of its own and draws what it shows at the end: docs/assets/quickstart.svg.

What the command prints before the layer table is left out, and of a progress bar only its last state is kept.

    python docs/tools/record.py .venv/bin/nlp-ft train recipes/quickstart.yaml --overwrite
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import sys
import termios
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "assets" / "quickstart.svg"
COLUMNS, ROWS = 80, 60
FIRST_SHOWN = "layer  name"
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def output_of(command: list[str]) -> str:
    """What the command writes to a terminal of `COLUMNS` columns. Raises: SystemExit where it fails."""
    written = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        written.extend(data)
        return data

    def with_size() -> None:
        fcntl.ioctl(sys.stdout.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.execvp(command[0], command)  # noqa: S606

    process, terminal = pty.fork()
    if process == 0:
        with_size()
    try:
        while data := read(terminal):
            sys.stdout.write(data.decode(errors="replace"))
    except OSError:  # the terminal of a process that has ended
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code:
        raise SystemExit(code)
    return written.decode()


def last_states(output: str) -> list[str]:
    """The lines as the terminal shows them at the end."""
    lines = [re.split(r"\r(?!$)", line.rstrip("\r"))[-1].rstrip() for line in output.split("\n")]
    first = next(number for number, line in enumerate(lines) if line.startswith(FIRST_SHOWN))
    return lines[first:]


def main() -> None:
    """Run, and write the picture."""
    command = sys.argv[1:]
    lines = last_states(output_of(command))
    shown = ["nlp-ft" if word.endswith("nlp-ft") else word for word in command if word != "--overwrite"]
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text(f"$ {shlex.join(shown)}", style="bold green"))
    console.print(Text("..."))
    console.print(Text.from_ansi("\n".join(lines).strip()), no_wrap=True, crop=True)
    console.save_svg(str(PICTURE), title="nlp-ft", code_format=SVG, unique_id="run")


if __name__ == "__main__":
    main()
