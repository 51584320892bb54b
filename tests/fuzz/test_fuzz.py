"""A sample of the fuzzer's trials, and proofs that it sees what it looks for; the whole is `python -m tests.fuzz`."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nlp_ft.errors import DataError
from tests.fuzz import driver
from tests.fuzz.__main__ import all_trials, main
from tests.fuzz.driver import GOOD, Trial, run_trial
from tests.fuzz.workplace import make_workplace

SAMPLE = 5


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("fuzz") / "work", with_images=False)


def test_a_sample_of_broken_things_is_refused_clearly_or_gives_the_right_result(workplace: Path) -> None:
    endings = [run_trial(trial, workplace) for trial in all_trials(0, SAMPLE, with_images=False)]
    assert [str(ending) for ending in endings if ending.kind not in GOOD] == []
    assert len(endings) == SAMPLE


def refuse(message: str) -> Callable[[], None]:
    def act() -> None:
        raise DataError(message)

    return act


def break_down() -> None:
    raise RuntimeError("x")


ACTS: list[tuple[str, Callable[[], object]]] = [
    ("right", lambda: None),
    ("refused", refuse("a.csv is broken")),
    ("unclear", refuse("something is broken")),
    ("unclear", break_down),
    ("unclear", lambda: print("\x1b[2J")),
    ("traceback", lambda: os._exit(3)),
    ("hang", lambda: time.sleep(60)),
    ("crash", lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    ("lost files", lambda: Path("mine").unlink()),
    ("lost files", lambda: Path("mine").write_text("other")),
    ("left-over files", lambda: Path("new").mkdir()),
]


@pytest.mark.parametrize(("kind", "act"), ACTS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_driver_sees_each_bad_ending(
    kind: str, act: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("mine")

    def command(options: object) -> int:
        act()
        return 0

    monkeypatch.setattr("nlp_ft.cli.run_schema", command)
    trial = Trial("x: y", lambda work: None, ("schema",), named=("a.csv",))
    assert run_trial(trial, tmp_path, 0.5 if kind == "hang" else driver.SECONDS).kind == kind


def test_a_result_where_none_is_right_and_one_that_the_check_refuses_are_bad(tmp_path: Path) -> None:
    taken = Trial("x: y", lambda work: None, ("schema",), must_refuse=True)
    wrong = Trial("x: y", lambda work: None, ("schema",), check=lambda work, out: f"{len(out) > 100}")
    assert [run_trial(trial, tmp_path).kind for trial in (taken, wrong)] == ["taken", "wrong"]


@pytest.mark.slow
def test_a_thousand_broken_things_are_refused_clearly_or_give_the_right_result() -> None:
    assert main(["--seed", "0", "--cases", "1000"]) == 0
