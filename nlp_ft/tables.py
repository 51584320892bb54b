"""Plain text tables and lines that fit a terminal, a log file or a model card, and short forms of numbers."""

import shutil
import textwrap
import unicodedata
from collections.abc import Collection, Sequence

from nlp_ft.errors import printable

DEFAULT_WIDTH = 80
"""Columns of the screen where the output does not go to a terminal."""
LEAST_WIDTH = 40
LEAST_CELL = 8
"""To fewer columns no cell is shortened."""
DOTS = "..."


def terminal_width() -> int:
    """Return the columns of the terminal, or of `COLUMNS`; 80 where there is none."""
    return max(LEAST_WIDTH, shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns)


def text_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[int] = (),
    width: int | None = None,
    shrink: Collection[int] = (0,),
) -> str:
    """Write a table, with columns padded to their widest cells.

    Args:
        header: name of each column.
        rows: cells of each row; control characters in them are escaped, so that each cell is one line.
        right: indices of the columns to align to the right.
        width: columns of the screen; None, as for a file, shows every cell in full.
        shrink: indices of the columns whose cells are shortened in the middle where the table would be wider. What is
            too wide all the same becomes several tables, one below the other, each with the first column.
    """
    header, rows = [printable(cell) for cell in header], [[printable(cell) for cell in row] for row in rows]
    widths = [max(_columns(row[i]) for row in [header, *rows]) for i in range(len(header))]
    if width is not None:
        widths = _fitted(widths, width - 2 * (len(header) - 1), shrink, width // 3)

    def line(row: Sequence[str], columns: Sequence[int]) -> str:
        return "  ".join(_padded(shortened(row[i], widths[i]), widths[i], i in right) for i in columns).rstrip()

    def block(columns: Sequence[int]) -> str:
        rule = "  ".join("-" * widths[i] for i in columns)
        return "\n".join([line(header, columns), rule, *(line(row, columns) for row in rows)])

    return "\n\n".join(block(columns) for columns in _blocks(widths, width))


def shortened(text: str, width: int) -> str:
    """Replace the middle of a text by three dots if it is wider than `width` columns."""
    if _columns(text) <= width:
        return text
    room = width - len(DOTS)
    start, end = text[: room - room // 2], text[len(text) - room // 2 :]
    while start and _columns(start + end) > room:
        start, end = (start[:-1], end) if _columns(start) >= _columns(end) else (start, end[1:])
    return f"{start}{DOTS}{end}"


def wrapped(text: str, width: int | None = None) -> str:
    """Break the lines that are wider than the screen at blanks; what follows is indented. No word is broken.

    Args:
        text: one line or several.
        width: columns of the screen; None asks the terminal.
    """
    width = width or terminal_width()
    return "\n".join(line if len(line) <= width else _wrapped_line(line, width) for line in text.split("\n"))


def short_count(number: int) -> str:
    """Write a number of parameters or rows with three digits: `4,620`, `149K`, `1.77M`, `22.6M`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= max(0.9995 * size, 9_999.5 if unit == "K" else 0):
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:,}"


def short_share(part: int, whole: int) -> str:
    """Write a share as `7.9%`; one below 0.1 % with its first digit, `0.02%`, so that some is never none."""
    share = part / whole
    return f"{share:.1%}" if share >= 0.0005 or not part else f"{float(f'{100 * share:.1g}'):f}".rstrip("0") + "%"


def short_rate(rate: float, decimals: int = 1) -> str:
    """Write a learning rate as `3.2e-4`."""
    if not rate:
        return "0"
    mantissa, _, exponent = f"{rate:.{decimals}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _wrapped_line(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        expand_tabs=False,
    )


def _columns(text: str) -> int:
    """Count the columns that a text takes in a terminal: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _padded(text: str, width: int, is_right: bool) -> str:
    blanks = " " * (width - _columns(text))
    return blanks + text if is_right else text + blanks


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Divide columns into blocks that fit the screen, each of which begins with the first column."""
    blocks = [[0]]
    for column in range(1, len(widths)):
        taken = sum(widths[i] + 2 for i in blocks[-1])
        if width is not None and taken + widths[column] > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(column)
    return blocks


def _fitted(widths: Sequence[int], room: int, shrink: Collection[int], most: int) -> list[int]:
    """Take the columns that are too many from the widest of those that may shrink.

    Where that is not enough, the table is divided, and each of its parts has room for `most` columns of a cell.
    """
    fitted = list(widths)
    while sum(fitted) > room and shrink:
        widest = max(shrink, key=lambda column: fitted[column])
        if fitted[widest] <= LEAST_CELL:
            return [min(taken, most) if i in shrink else taken for i, taken in enumerate(widths)]
        fitted[widest] -= 1
    return fitted
