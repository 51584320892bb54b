"""Fixtures for every test."""

from pathlib import Path

import pytest

from tests.tiny import save_tiny_encoder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))
