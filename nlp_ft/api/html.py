"""Tables of a run as HTML, for notebooks; texts of the user are escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nlp_ft.errors import printable
from nlp_ft.tasks.baselines import short_title

RIGHT = ' style="text-align: right"'


def run_as_html(folder: Path, summary: Mapping[str, Any]) -> str:
    """Write the scores of every split and baseline, the verdict, and where the run is.

    Args:
        folder: the run folder.
        summary: the content of its summary.json.
    """
    rows: dict[str, Mapping[str, float]] = dict(summary["metrics"])
    last: Mapping[str, Mapping[str, float]] = next(reversed(list(summary["baselines"].values())), {})
    rows |= {f"vs {short_title(name)}": scores for name, scores in last.items()}
    names = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    cells = [
        [title, *(f"{scores[name]:.4f}" if name in scores else "-" for name in names)] for title, scores in rows.items()
    ]
    remarks = "".join(_remark(remark) for remark in summary.get("verdict", []))
    place = f"{summary['strategy']}, seed {summary['seed']}, {summary['train_seconds']:.1f} s of training, in "
    return (
        f"<p><b>nlp_ft run</b>: {_shown(place)}<code>{_shown(str(folder))}</code></p>"
        f"{table(['', *(name.replace('_', ' ') for name in names)], cells)}"
        f"{f'<ul>{remarks}</ul>' if remarks else ''}"
    )


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; the first column is of texts, the others of numbers."""
    head = "".join(f"<th{RIGHT if place else ''}>{_shown(title)}</th>" for place, title in enumerate(titles))
    lines = [
        "".join(f"<td{RIGHT if place else ''}>{_shown(cell)}</td>" for place, cell in enumerate(row)) for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _remark(remark: Mapping[str, str]) -> str:
    advice = f"<br><i>do: {_shown(remark['do'])}</i>" if remark.get("do") else ""
    return f"<li>{_shown(remark['says'])}{advice}</li>"


def _shown(text: str) -> str:
    return escape(printable(text))
