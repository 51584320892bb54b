"""Processes that train cells: several at a time share the threads of the machine."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from nlp_ft.study.process import at_a_time, start_process


@pytest.mark.parametrize(("jobs", "expected"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_processes_at_a_time_share_the_threads(jobs: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    start = at_a_time(jobs)
    assert isinstance(start, partial)
    assert (start.func, start.keywords) == (start_process, {"threads": expected})


def test_omp_num_threads_holds_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert at_a_time(4) is start_process


def test_a_process_computes_with_the_threads_it_is_given(tmp_path: Path) -> None:
    program = """
import os, sys
import torch
from nlp_ft.study import process

process._trained = lambda recipe: print(torch.get_num_threads()) or 0
process._end_with_parent = lambda: None
process._train("any", sys.argv[1], os.getcwd(), {}, 3)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "log")], check=True)
    assert (tmp_path / "log").read_text() == "3\n"
