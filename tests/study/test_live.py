"""What a comparison shows while it runs: a table in a terminal, lines elsewhere."""

import io
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.study.cells import Cell, Plan, make_plan
from nlp_ft.study.live import View
from tests.study.test_compare import write_recipe

TABLE = """\
           cells  best accuracy  trains now
---------  -----  -------------  ----------
full         2/2           75.0
head_only    0/2                 x1-seed0"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Plan:
    folder = tmp_path_factory.mktemp("live")
    return make_plan(write_recipe(folder, tiny_encoder), [], folder / "c", ["full", "head_only"], 1, 2)


def summary(score: float) -> dict[str, Any]:
    return {"metrics": {"validation": {"accuracy": score}}, "train_seconds": 2.0}


def test_a_terminal_has_one_table_that_is_drawn_over_itself(plan: Plan) -> None:
    stream = Terminal()
    view = View(plan, plan.cells, 1, stream)
    view.known(Cell("full", 1.0, 0), summary(0.5))
    view.draw([], 3)
    view.draw([], 3)  # within a second
    assert stream.getvalue().count("best accuracy") == 1
    view.finished(Cell("full", 1.0, 1), summary(0.75), 2)
    stream.truncate(0)
    stream.seek(0)
    view.draw([Cell("head_only", 1.0, 0)], 2, is_last=True)
    assert stream.getvalue() == f"\x1b[5A\x1b[J{TABLE}\n2/4 cells, about 00:00 left\n"


def test_elsewhere_each_cell_is_a_line(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    view = View(plan, plan.cells, 1)
    view.draw([], 4)
    view.finished(Cell("head_only", 1.0, 0), summary(0.5), 3)
    assert capsys.readouterr().out == "1/4 head_only-x1-seed0  accuracy 0.5000  2.0 s, about 00:00 left\n"


def test_the_best_of_a_loss_is_the_lowest(plan: Plan) -> None:
    view = View(plan, plan.cells, -1, Terminal())
    for seed, score in ((0, 0.5), (1, 0.75)):
        view.known(Cell("full", 1.0, seed), summary(score))
    assert "full         2/2           50.0" in view.table([])
