"""What a run shows: no line is wider than 80 columns, how much each level shows, and the hint at the end."""

import csv
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from nlp_ft import screen
from nlp_ft.cli import build_parser, main
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.screen import at_level, say, show
from nlp_ft.tasks.answers import AnswerOutputs
from nlp_ft.tasks.baselines import TITLES, short_title
from nlp_ft.tasks.choices import ChoiceOutputs
from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.tasks.multi_label_classification import LabelSetOutputs
from nlp_ft.tasks.outputs import score_table
from nlp_ft.tasks.tag_outputs import TagOutputs
from nlp_ft.tasks.text_regression import NumberOutputs
from nlp_ft.training.run import train
from tests.tiny import WORDS, save_tiny_encoder, tiny_recipe
from tests.tiny_images import tiny_image_recipe

LONG = "a label whose name takes far more room than any screen of eighty columns has: number "


@pytest.fixture(autouse=True)
def _in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders are named by short paths."""
    monkeypatch.chdir(tmp_path)


def too_wide(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if len(line) > 80]


def write_rows(file: str, header: list[str], rows: list[list[object]]) -> str:
    with open(file, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def command_at_the_end(shown: str) -> list[str]:
    """The words after `nlp-ft` in the last line."""
    start, _, command = shown.splitlines()[-1].partition(" nlp-ft ")
    assert start == "next:"
    build_parser().parse_args(shlex.split(command))
    return shlex.split(command)


def test_a_gradual_run_of_twelve_blocks_and_77_long_labels_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", num_hidden_layers=12)
    rows: list[list[object]] = [
        [f"{WORDS[n % 14]} {WORDS[n % 11]} {WORDS[n % 5]}", f"{LONG}{n % 77}"] for n in range(154)
    ]
    data = {split: write_rows(f"{split}.csv", ["text", "label"], rows) for split in ("train", "validation", "test")}
    recipe = {
        "data": data,
        "model": {"name": str(encoder), "pooling": "mean"},
        "strategy": "gradual",
        "training": {"duration": "14st", "per_device_batch_size": 8, "evaluate_every": "7st"},
        "baselines": True,
        "output_dir": "run",
    }
    train(recipe_from_dict(recipe))
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert too_wide(shown) == []
    [last] = [line for line in lines if line.startswith("14 13 head, blocks 1-12, embeddings ")]
    assert [line.split()[-1] for line in lines if re.match(r"\d+ (head|block|embed)", line)][:14] == [
        "yes",
        *["later"] * 13,
    ]
    assert last.endswith(" 8.5e-5 to 3.0e-2 36.6K 100.0%")
    assert any(line.startswith("step 7 epoch 0.35 accuracy 0.") and " macro f1 0." in line for line in lines)
    assert "the 12 of 77 labels with the lowest F1" in lines
    assert "test (as a file: test_per_class.csv in the run folder)" in lines
    assert shown.endswith("next: make the first change above, and train again with --overwrite\n")
    # The run folder holds every label in full.
    assert Path("run/test_per_class.csv").read_text().count(LONG) == 77
    assert LONG not in shown


def test_a_regression_on_pairs_fits_and_its_hint_has_two_texts(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[list[object]] = [[WORDS[n % 14], WORDS[n % 5], (n % 7) / 2] for n in range(40)]
    data = {split: write_rows(f"{split}.csv", ["one", "two", "score"], rows) for split in ("train", "validation")}
    recipe = {
        "task": "text_regression",
        "data": {**data, "text": ["one", "two"], "label": "score"},
        "model": {"name": str(tiny_encoder), "pooling": "mean"},
        "training": {"duration": "1ep", "per_device_batch_size": 8},
        "baselines": False,
        "output_dir": "run",
    }
    train(recipe_from_dict(recipe))
    shown = capsys.readouterr().out
    assert too_wide(shown) == []
    [evaluated] = [line for line in shown.splitlines() if line.startswith("step 5  epoch 1.00  ")]
    assert evaluated.split()[4::2][:3] == ["spearman", "pearson", "loss"]
    command = command_at_the_end(shown)
    assert command == ["predict", "run", "a first text", "a second text"]
    with pytest.raises(SystemExit, match="0"):
        main(command)


def test_a_run_on_images_fits_and_its_hint_is_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    recipe = tiny_image_recipe(tmp_path, training={"duration": "1ep"}, output_dir="run")
    train(recipe_from_dict(recipe))
    shown = capsys.readouterr().out
    assert too_wide(shown) == []
    assert "modes: train " in shown
    assert command_at_the_end(shown) == ["predict", "run", "image.jpg"]


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (ClassOutputs, ["vs majority", "vs TF-IDF"]),
        (LabelSetOutputs, ["vs no label", "vs majority set", "vs TF-IDF"]),
        (TagOutputs, ["vs one tag", "vs tag of word"]),
        (NumberOutputs, ["vs mean", "vs TF-IDF"]),
        (AnswerOutputs, ["vs first sentence", "vs TF-IDF"]),
        (ChoiceOutputs, ["vs longest candidate", "vs TF-IDF"]),
    ],
)
def test_the_names_of_baselines_fit_beside_the_scores_of_their_task(outputs: Any, names: list[str]) -> None:
    scores = {f"vs {short_title(name)}": dict.fromkeys(outputs.shown_metrics, 0.5) for name in TITLES}
    lines = score_table(scores, outputs.shown_metrics, width=80).splitlines()
    assert not too_wide("\n".join(lines))
    assert [name for name in names if not any(line.startswith(f"{name} ") for line in lines)] == []


def test_a_quiet_run_shows_the_scores_alone(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with at_level("quiet"):
        summary = train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, baselines=False)))
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert err == ""
    assert [line[0] for line in lines] == ["accuracy", "-" * 10, "validation", "test"]
    assert lines[3][1] == f"{summary['metrics']['test']['accuracy']:.4f}"


def test_a_quiet_run_without_scores_shows_nothing(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(tmp_path, tiny_encoder, baselines=False, training={"duration": "2st"})
    recipe["data"] = {"train": str(tmp_path / "train.csv")}
    with at_level("quiet"):
        train(recipe_from_dict(recipe))
    assert capsys.readouterr() == ("", "")


def test_a_verbose_run_also_shows_settings_versions_and_the_whole_layer_table(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text(
        dump_yaml(tiny_recipe(tmp_path, tiny_encoder, training={"duration": "1ep"}, baselines=False))
    )
    shown = {}
    for level in ("--quiet", "--verbose"):
        with pytest.raises(SystemExit, match="0"):
            main(["train", "r.yaml", "output_dir=run", "--overwrite", level])
        shown[level] = capsys.readouterr().out
    assert len(shown["--quiet"].splitlines()) == 4
    for said in (
        "above the usual rates of pretrained layers, 1e-05 to 0.0005",
        "output_dir: run # command line",
        " versions: nlp_ft ",
        " lr scale weight decay trainable ",
    ):
        assert said in " ".join(shown["--verbose"].split())


def test_only_one_of_several_processes_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        say(f"said by {rank}")
        show(f"shown by {rank}")
    assert capsys.readouterr().out == "said by 0\nshown by 0\n"


def test_the_hint_names_the_command_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/nlp-ft"])
    monkeypatch.setattr(screen, "which", lambda name: None)
    assert screen.program() == ".venv/bin/nlp-ft"
    monkeypatch.setattr(screen, "which", lambda name: "/usr/bin/nlp-ft")
    assert screen.program() == "nlp-ft"
