"""Fixtures for every test."""

import os

# Tiny models gain nothing from threads, and threads that wait for each other on a busy machine cost much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whatever the terminal of the tests, commands print for one of 80 columns.
os.environ["COLUMNS"] = "80"

from pathlib import Path

import pytest

from tests.tiny import save_tiny_encoder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs keep for the next ones does not leave the tests."""
    os.environ["NLP_FT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))
