"""Writes the report of a run, or of several, as one file of HTML, Markdown or JSON, all from one dictionary."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nlp_ft.errors import RunFolderError, printable
from nlp_ft.report.compare import describe_runs
from nlp_ft.report.figures import figures_of_run, figures_of_runs
from nlp_ft.report.run_files import SUMMARY
from nlp_ft.report.summary import ROWS_LISTED, describe_run

Format = Literal["html", "md", "json"]
MOST_BYTES = 1_000_000
"""Most bytes of a report; beyond them it lists fewer rows."""
SPECIAL_IN_MARKDOWN = re.compile(r"[\\`*_\[\]<>&#!|~$]")
COVERAGE = ("rows kept", "right of these", "--min-confidence")
COST = {
    "train_seconds": ("training", "{:,.1f} s"),
    "total_seconds": ("whole run", "{:,.1f} s"),
    "train_examples_per_second": ("speed", "{:,.0f} examples/s"),
    "peak_memory_bytes": ("peak memory", "{:,.0f} MiB"),
    "num_parameters": ("parameters", "{:,}"),
    "num_trainable_parameters": ("of these, trained", "{:,}"),
    "global_step": ("steps", "{:,}"),
    "best_step": ("weights kept from step", "{:,}"),
    "effective_batch_size": ("effective batch", "{:,.0f} rows"),
    "num_processes": ("processes", "{}"),
    "device": ("device", "{}"),
    "precision": ("precision", "{}"),
}


def format_of(output: str | None, form: Format | None) -> Format:
    """Choose the format: the given one, or by the ending of the file. Raises: RunFolderError: no format fits."""
    endings: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}
    if form is not None or output is None:
        return form or "html"
    ending = Path(output).suffix.lower()
    if ending not in endings:
        raise RunFolderError(f"--output: {output} must end in .html, .md or .json; or name the format with --format")
    return endings[ending]


def report_file(runs: Sequence[str], output: str | None, form: Format, overwrite: bool) -> Path:
    """Choose the file to write: by default `report` in the folder of a single run, or here for several.

    Raises:
        RunFolderError: the file exists and is not to be replaced; the report of a run in its folder always is.
    """
    folder = Path(runs[0]) if len(runs) == 1 else Path()
    file = Path(output) if output is not None else folder / f"report.{form}"
    is_own = output is None and len(runs) == 1
    if file.exists() and not (overwrite or is_own):
        raise RunFolderError(f"--output: {file} exists; choose another, or pass --overwrite to replace it")
    return file


def write_report(
    folder: str | Path, output: str | Path, form: Format = "html", *, texts: bool = True, summary_file: str = SUMMARY,
    name: str = "",
) -> None:  # fmt: skip
    """Write the report of one run.

    Args:
        folder: the run folder.
        output: the file to write; it is replaced.
        form: `html`, `md` or `json`.
        texts: whether the report shows the texts of rows.
        summary_file: name of the summary in the folder, see `describe_run`.
        name: name of the run; an empty text takes that of the folder.

    Raises:
        RunFolderError: the folder is no finished run, or the file cannot be written.
    """
    for most in (ROWS_LISTED, 5, 0):
        run = describe_run(folder, summary_file=summary_file, name=name, most=most, texts=texts)
        text = render_run(run, form)
        if len(text.encode()) <= MOST_BYTES:
            break
    save(text, output)


def write_comparison(folders: Sequence[str | Path], output: str | Path, form: Format = "html") -> None:
    """Write the report of several runs side by side, which has no texts of rows; see `write_report`."""
    runs = describe_runs(folders)
    if form == "json":
        return save(as_json(runs), output)
    figures = figures_of_runs(runs) if form == "html" else {}
    return save(render(f"runs.{form}.j2", title=f"{len(folders)} runs compared", runs=runs, figures=figures), output)


def save(text: str, output: str | Path) -> None:
    """Write a report, whole or not at all. Raises: RunFolderError: the file cannot be written."""
    file = Path(output).resolve()
    writing = file.with_name(f"{file.name}.writing")
    try:
        writing.write_text(text, encoding="utf-8", newline="\n")
        writing.replace(file)
    except OSError as error:
        raise RunFolderError(f"--output: {output}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            writing.unlink(missing_ok=True)


def render_run(run: Mapping[str, Any], form: Format) -> str:
    """Write the dictionary of `describe_run` as a report."""
    if form == "json":
        return as_json(run)
    figures = figures_of_run(run) if form == "html" else {}
    return render(
        f"run.{form}.j2",
        title=f"{run['name']}: report of a run",
        run=run,
        figures=figures,
        cost=_cost(run["cost"]),
        data_table=_data_table(run["data"]),
        phase_rows=[
            [str(number), phase["step"], phase["layers"], phase["why"]]
            for number, phase in enumerate(run["phases"], start=1)
        ],
        probe_rows=_probe_rows(run["probe"]),
        coverage_header=COVERAGE,
    )


def as_json(values: Mapping[str, Any]) -> str:
    """Write the dictionary of a report as JSON; what is no number becomes null."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; texts are escaped in HTML."""
    environment = Environment(
        loader=PackageLoader("nlp_ft.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "figure": shown_figure,
        "words": lambda text: str(text).replace("_", " "),
        "metric_names": _metric_names,
        "md": _markdown,
        "spans": _spans,
        "coverage_row": _coverage_row,
    }
    return environment.get_template(template).render(**values)


def shown_figure(value: Any) -> str:
    """Write a float with four decimals and a count with separators; anything else as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}"


def _metric_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the metrics in their order, the loss last."""
    names = dict.fromkeys(name for values in rows for name in values)
    return [*(name for name in names if name != "loss"), *(["loss"] if "loss" in names else [])]


def _cost(cost: Mapping[str, Any]) -> dict[str, str]:
    shown = {**cost, "peak_memory_bytes": cost.get("peak_memory_bytes", 0) / 2**20}
    return {title: form.format(shown[name]) for name, (title, form) in COST.items() if name in cost}


def _data_table(data: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Make a row for each thing that is known, and a column for each split."""
    names = dict.fromkeys(key for of in data for key in of if key != "split")
    rows = [[name.replace("_", " "), *(of.get(name, "-") for of in data)] for name in names]
    return ["", *(of["split"] for of in data)], rows


def _probe_rows(probe: Mapping[str, Any] | None) -> list[list[Any]]:
    """Make a row for each layer of a probe: its name, its score, the standard error, and whether it was chosen."""
    return [
        [
            one["name"],
            *("-" if one[key] is None else one[key] for key in ("score", "standard_error")),
            "chosen" if one["chosen"] else "",
        ]
        for one in (probe or {"layers": []})["layers"]
    ]


def _coverage_row(point: Mapping[str, float]) -> list[str]:
    return [f"{point['kept']:.1%}", f"{point['share_right']:.1%}", f"{_below(point['min_confidence']):.4f}"]


def _below(number: float) -> float:
    """Round down to four decimals, so that what is as high as the number is as high as the result."""
    return math.floor(number * 1e4) / 1e4


def _markdown(text: object) -> str:
    return SPECIAL_IN_MARKDOWN.sub(r"\\\g<0>", printable(str(text)))


def _spans(segments: Iterable[Mapping[str, str | None]]) -> str:
    return " ".join(f"[{one['text']}: {one['span']}]" if one["span"] else str(one["text"]) for one in segments)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(of) for of in value]
    return None if isinstance(value, float) and value - value != 0 else value
