"""The report of a comparison: what stands in it, that texts are escaped, and what a browser shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.report.study import draw_front, write_study
from tests.report.browser import browser, measure

HOSTILE = '<script>alert("x")</script>'
PROGRAM = browser()
POINTS = [
    {"name": "full", "score": 0.92, "interval": (0.90, 0.94), "seconds": 60.0, "kind": "front"},
    {"name": "head_only", "score": 0.85, "interval": (0.80, 0.90), "seconds": 5.0, "kind": "front"},
    {"name": "gradual", "score": 0.91, "interval": (0.90, 0.92), "seconds": 61.0, "kind": "dominated"},
    {"name": "probe", "score": 0.80, "interval": None, "seconds": 2.0, "kind": "cheap"},
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three strategies of two seeds, without a model."""
    folder = tmp_path_factory.mktemp("study")
    runs: dict[str, list[str]] = {}
    for strategy in ("full", "head_only", "gradual"):
        for seed in range(2):
            run = folder / f"{strategy}-{seed}"
            run.mkdir()
            scores = [{"step": s, "validation": {"accuracy": 0.5 + s / 100 + seed / 10, "loss": 1 / s}} for s in (5, 9)]
            (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in scores))
            runs.setdefault(strategy, []).append(str(run))
    page: dict[str, Any] = {
        "title": "3 strategies compared",
        "metric": "accuracy",
        "folder": HOSTILE,
        "answer": ["Pareto front: full, head_only.", "full: better."],
        "remarks": [f"odd: {HOSTILE}"],
        "about": "test accuracy",
        "tables": [{"title": "Scores", "header": ["", "accuracy"], "rows": [["full", "92.0"], ["head_only", "85.0"]]}],
        "points": POINTS,
        "runs": runs,
        "command": "nlp-ft compare mine.yaml",
        "versions": {"torch": "2.9"},
    }
    write_study(page, folder / "report.html")
    return folder / "report.html"


def test_the_report_answers_first_and_is_one_small_file_without_network_and_scripts(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    parts = [
        text.index(part) for part in ("Pareto front: full", "full marks are on", "92.0", "odd: ", "nlp-ft compare")
    ]
    assert parts == sorted(parts)
    assert HOSTILE not in text
    assert re.findall(r'(?:src|href)="(?!#|data:)', text) == []
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions[1:] == ["Accuracy on validation", "Loss on validation"]


def test_the_front_says_each_point_and_fills_only_the_marks_of_the_front() -> None:
    figure = draw_front(POINTS, "accuracy")
    assert figure["alt"] == (
        "Scatter plot of accuracy against seconds. full 0.9200 in 60 s (front); head_only 0.8500 in 5 s (front); "
        "gradual 0.9100 in 61 s (dominated); probe 0.8000 in 2 s (cheap)."
    )
    assert [f">{name}<" in figure["svg"] for name in ("full", "head_only", "gradual", "probe")] == [True] * 4
    filled = set(re.findall(r"fill: (var\(--series-\d\))", figure["svg"]))
    assert filled == {"var(--series-0)", "var(--series-1)"}


def test_names_of_points_that_lie_close_do_not_cover_each_other() -> None:
    close = [{**POINTS[0], "name": f"strategy {i}", "seconds": 60 + i / 100, "score": 0.92} for i in range(4)]
    svg = draw_front([*close, POINTS[1]], "accuracy")["svg"]
    # matplotlib writes a text as a comment-free <text> with its place in a transform.
    places = re.findall(r"<text[^>]*translate\(([\d.]+) ([\d.]+)\)[^>]*>strategy \d</text>", svg)
    places = places or re.findall(r'<text[^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>strategy \d</text>', svg)
    assert len({(round(float(x)), round(float(y))) for x, y in places}) == 4


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no browser is installed: chromium or google-chrome")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_all_of_it_at_the_width_of_a_screen_and_of_a_phone(report: Path, width: int) -> None:
    assert PROGRAM is not None
    found = measure(PROGRAM, report, width)
    assert found["console"] == []
    assert found["scrollWidth"] <= found["width"] == width
    assert (found["wide"], found["cut"]) == ([], [])
    assert (found["svgs"], found["unnamed"], found["headings"], found["scripts"]) == (3, 0, 1, 0)
