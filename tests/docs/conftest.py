"""The folder in which code blocks run."""

from pathlib import Path

import pytest

from tests.docs.place import fill, train_runs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all blocks, with data, recipes and finished runs."""
    folder = tmp_path_factory.mktemp("place")
    fill(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_runs()
    return folder
