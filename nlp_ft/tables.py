"""Plain text tables that read the same in a terminal, a log file and a model card."""

from collections.abc import Collection, Sequence

from nlp_ft.errors import printable


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Write a table, with columns padded to their widest cells.

    Args:
        header: name of each column.
        rows: cells of each row; control characters in them are escaped, so that each cell is one line.
        right: indices of the columns to align to the right.
    """
    header, rows = [printable(cell) for cell in header], [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
