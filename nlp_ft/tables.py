"""Plain text tables that read the same in a terminal, a log file and a model card."""

from collections.abc import Collection, Sequence

from nlp_ft.errors import printable


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Pad the columns to their widest cells; those whose index is in `right` are aligned to the right.

    A cell is one line: what a label or a name holds of controls is shown as `printable` shows it.
    """
    header, rows = [printable(cell) for cell in header], [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
