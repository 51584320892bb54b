"""What a run folder keeps of the tokenizer."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.text import TextModelSection
from nlp_ft.tasks.encoder_task import save_tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_saved_tokenizer_keeps_its_length_and_its_side_of_truncation(
    tmp_path: Path, tiny_encoder: Path, side: str
) -> None:
    save_tokenizer(load_tokenizer(TextModelSection(name=str(tiny_encoder))), tmp_path, 16, side)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert (saved.model_max_length, saved.truncation_side) == (16, side)
