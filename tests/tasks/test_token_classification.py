"""Tags of words: learned, scored by spans, predicted with places in the text, in windows, resumed."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nlp_ft.cli import main
from nlp_ft.errors import DataError, RecipeError
from nlp_ft.prediction.predict import evaluate_run, load_run, predict
from nlp_ft.recipe.loader import load_recipe, recipe_from_dict
from nlp_ft.tasks.losses import TagLoss
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.tag_metrics import score_tags
from nlp_ft.tasks.tag_outputs import NO_TAG, TagOutputs
from nlp_ft.training.inspection import audit_recipe, describe_layers, inspect_recipe
from nlp_ft.training.run import train
from tests.tasks.test_text_regression import killed_after as killed_after
from tests.tiny_words import save_byte_level_encoder, tagged_rows, words_recipe, write_rows
from tests.training.test_processes import launch

SLOW_STRATEGIES = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("head_only", "top_layers", "lp_ft", "scratch")
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("words")
    train(recipe_from_dict(words_recipe(folder, tiny_encoder)))
    return folder / "run"


DROPPED_AND_KEPT = [("\u200b", "O"), ("cat", "B-animal"), ("the", "O")]


def test_a_run_learns_entities_and_beats_the_baselines(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    scores, baselines = summary["metrics"]["test"], summary["baselines"]["test"]
    assert summary["metric"] == "span_f1"
    assert scores["span_f1"] > 0.9
    assert baselines["most_frequent_tag"]["span_f1"] == 0
    assert 0 < baselines["tag_of_word"]["span_f1"] < 1
    assert summary["data"]["test"]["entities"] == sum(summary["data"]["test"]["labels"].values())
    card = (run / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert 'classify("a text", aggregation_strategy="first")' in card.replace("print(classify", "classify")


def test_the_files_of_a_run_hold_types_words_and_rows_by_loss(run: Path) -> None:
    with (run / "test_per_type.csv").open() as stream:
        types = {row["type"]: row for row in csv.DictReader(stream)}
    rows = tagged_rows(20, 2)
    assert types.keys() == {"animal", "colour"}
    assert int(types["colour"]["support"]) == sum(tag == "B-colour" for row in rows for tag in row["ner_tags"])
    with (run / "test_confusion_matrix.csv").open() as stream:
        matrix = list(csv.reader(stream))
    assert matrix[0] == ["true tag", "O", "B-animal", "I-animal", "B-colour"]
    assert sum(int(cell) for line in matrix[1:] for cell in line[1:]) == sum(len(row["tokens"]) for row in rows)
    with (run / "test_predictions.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert sorted(int(line["row"]) for line in lines) == list(range(20))
    for line in lines:
        assert json.loads(line["words"]) == rows[int(line["row"])]["tokens"]
        assert json.loads(line["reference"]) == rows[int(line["row"])]["ner_tags"]
    losses = [float(line["loss"]) for line in lines]
    assert losses == sorted(losses, reverse=True)


def test_an_evaluation_of_a_file_gives_the_scores_of_the_summary(run: Path) -> None:
    expected = json.loads((run / "summary.json").read_text())["metrics"]["test"]
    assert evaluate_run(run).scores() == expected
    assert evaluate_run(run, str(run.parent / "test.jsonl")).scores() == expected


def test_entities_have_their_place_in_the_text_and_words_give_the_same(run: Path) -> None:
    text = "the  cat dog sleeps \t red"
    entities, of_words = predict(run, [text, ["the", "cat", "dog", "sleeps", "red"]])
    assert [(e.label, e.text, e.start, e.end, e.words) for e in entities] == [
        ("animal", "cat dog", 5, 12, (1, 3)),
        ("colour", "red", 22, 25, (4, 5)),
    ]
    assert all(text[e.start : e.end] == e.text and 0.5 < e.score <= 1 for e in entities)
    assert [(e.label, e.text, e.words, e.score) for e in of_words] == [
        (e.label, e.text, e.words, pytest.approx(e.score, abs=1e-6)) for e in entities
    ]
    assert predict(run, ["", []]) == [[], []]


def test_a_text_is_tagged_the_same_alone_and_in_a_batch(run: Path) -> None:
    texts = ["red", "the cat dog sleeps red cat runs the blue bird eats"]
    both = predict(run, texts)
    for text, found in zip(texts, both, strict=True):
        [alone] = predict(run, [text])
        assert [(e.start, e.end, e.label) for e in alone] == [(e.start, e.end, e.label) for e in found]
        assert [e.score for e in alone] == pytest.approx([e.score for e in found], abs=1e-5)


def test_the_command_line_prints_entities_and_writes_them_to_files(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert not end.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    [[cat]] = predict(run, ["the cat"])
    assert f"the cat\n  {cat.score:.4f}  animal  cat  [4:7]\n" in ended("predict", str(run), "the cat")
    assert "no entity" in ended("predict", str(run), "the")
    assert "span f1" in ended("eval", str(run))
    entity = {"start": 4, "end": 7, "label": "animal", "score": round(cat.score, 6), "text": "cat"}
    file = write_rows(tmp_path / "in.jsonl", [{"tokens": ["the", "cat"], "id": 7}])
    ended("predict", str(run), "--file", str(file), "--output", str(tmp_path / "out.jsonl"))
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert (written["id"], written["predicted_tags"]) == (7, ["O", "B-animal"])
    [found] = written["predicted_entities"]
    assert found == {**entity, "score": pytest.approx(entity["score"], abs=1e-5)}
    (tmp_path / "in.csv").write_text("text,id\nthe cat,7\n")
    for name in ("out.csv", "out.parquet"):
        ended("predict", str(run), "--file", str(tmp_path / "in.csv"), "--output", str(tmp_path / name))
    with (tmp_path / "out.csv").open() as stream:
        [line] = csv.DictReader(stream)
    assert json.loads(line["predicted_tags"]) == ["O", "B-animal"]
    assert json.loads(line["predicted_entities"])[0]["text"] == "cat"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "the O\ncat B-animal\n\nred O\n"),
        ("test.tsv", "the\tO\ncat\tO\n\nred\tO\n"),
        ("unlabelled.txt", "the\ncat\n\nred\n"),
        ("de.conllu", "# sent_id = 1\n1\tthe\t_\n2\tcat\t_\n\n1\tred\t_\n"),
    ],
)
def test_conll_files_are_predicted_with_tags_or_without(run: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(run), "--file", str(tmp_path / name), "--output", str(tmp_path / "out.jsonl")])
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in written] == [["the", "cat"], ["red"]]
    assert [row["predicted_tags"] for row in written] == [["O", "B-animal"], ["B-colour"]]


def test_a_text_file_is_not_predicted_as_words(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("the cat sleeps\n")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run), "--file", str(tmp_path / "a.txt"), "--output", str(tmp_path / "o.jsonl")])
    assert "files must all be one of .csv" in capsys.readouterr().err


def test_the_saved_folder_loads_in_plain_transformers_and_its_pipeline_finds_our_entities(run: Path) -> None:
    texts = ["the cat dog sleeps red", "blue bird eats the dog", "the runs"]
    code = (
        "import json, sys; from transformers import AutoModelForTokenClassification, pipeline; "
        f"model = AutoModelForTokenClassification.from_pretrained({str(run)!r}); "
        f"tag = pipeline('token-classification', model={str(run)!r}, aggregation_strategy='first'); "
        f"found = [[(e['start'], e['end'], e['entity_group'], float(e['score'])) for e in tag(t)] for t in {texts}]; "
        "assert 'nlp_ft' not in sys.modules; print(json.dumps([type(model).__name__, found]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    name, found = json.loads(result.stdout.splitlines()[-1])
    assert name == "BertForTokenClassification"
    ours = [[(e.start, e.end, e.label, e.score) for e in entities] for entities in predict(run, texts)]
    assert [[e[:3] for e in row] for row in ours] == [[tuple(e[:3]) for e in row] for row in found]
    assert [e[3] for row in ours for e in row] == pytest.approx([e[3] for row in found for e in row], abs=1e-4)
    assert sum(map(len, ours)) == 5


@pytest.mark.parametrize("model_type", ["roberta", pytest.param("modernbert", marks=pytest.mark.slow)])
def test_a_byte_level_tokenizer_learns_words_with_their_leading_space(tmp_path: Path, model_type: str) -> None:
    encoder = save_byte_level_encoder(tmp_path / "encoder", model_type)
    summary = train(recipe_from_dict(words_recipe(tmp_path, encoder, data={"max_length": 40})))
    assert summary["metrics"]["test"]["span_f1"] > 0.8
    loaded = load_run(tmp_path / "run")
    assert loaded.tokenizer.tokenize("cat") == ["Ġcat"]  # type: ignore[attr-defined]
    assert evaluate_run(tmp_path / "run").scores() == summary["metrics"]["test"]


def test_windows_give_every_word_one_tag_and_the_scores_count_rows(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = words_recipe(tmp_path, tiny_encoder, data={"max_length": 6, "stride": 2}, training={"duration": "2ep"})
    summary = train(recipe_from_dict(recipe))
    described = summary["data"]["test"]
    rows = tagged_rows(20, 2)
    assert (described["rows"], described["words"]) == (20, sum(len(row["tokens"]) for row in rows))
    assert described["windows"] > 20
    answers = evaluate_run(tmp_path / "run")
    assert answers.outputs.shown(answers.references).to_pylist() == [row["ner_tags"] for row in rows]
    assert (answers.predicted[answers.references != -100] >= 0).all()
    by_predict = load_run(tmp_path / "run").activated([row["tokens"] for row in rows])
    tags = answers.outputs.shown(answers.predicted).to_pylist()
    assert [one.tags(answers.outputs.label_names) for one in by_predict] == tags  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_word_that_the_tokenizer_drops_is_reported_and_scored_as_o(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = words_recipe(tmp_path, tiny_encoder, training={"duration": "1ep"})
    write_rows(tmp_path / "test.jsonl", [{"tokens": ["\u200b", "cat", "\u200d"], "ner_tags": ["O", "O", "B-colour"]}])
    found = inspect_recipe(recipe_from_dict(recipe))
    assert found.problems == []
    assert "the tokenizer drops 2 word(s) of test" in " ".join(found.report.split())
    train(recipe_from_dict(recipe))
    answers = evaluate_run(tmp_path / "run")
    [tags] = answers.outputs.shown(answers.predicted).to_pylist()
    assert (len(tags), tags[0], tags[2]) == (3, "O", "O")
    assert answers.outputs.shown(answers.references).to_pylist() == [["O", "O", "B-colour"]]


@pytest.mark.parametrize(("scheme", "names", "true"), [("none", ["N", "V"], "V"), ("iob2", ["B-x", "I-x"], "I-x")])
def test_a_word_without_tokens_is_no_span_where_the_tags_have_no_o(scheme: Any, names: list[str], true: str) -> None:
    outputs = TagOutputs(names, scheme)
    predicted, references = np.array([[0, NO_TAG]]), np.array([[0, 1]])
    assert outputs.tags(predicted) == [[names[0], "O"]]
    assert outputs.score(predicted, references) == score_tags([[names[0], "O"]], [[names[0], true]], scheme)
    assert "" not in outputs.counts(predicted)
    assert outputs.score(predicted, references)["accuracy"] == 0.5


def test_a_batch_of_words_that_the_tokenizer_drops_does_not_end_the_run(tmp_path: Path, tiny_encoder: Path) -> None:
    training = {"duration": "1ep", "per_device_batch_size": 1}
    values = words_recipe(tmp_path, tiny_encoder, data={"validation": None, "test": None}, training=training)
    write_rows(tmp_path / "train.jsonl", [{"tokens": [word], "ner_tags": [tag]} for word, tag in DROPPED_AND_KEPT])
    train(recipe_from_dict(values))
    [losses, *_] = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert (losses["step"], 0 < losses["loss"] < 2) == (3, True)


@pytest.mark.slow
def test_plain_tags_are_learned_word_by_word(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = words_recipe(tmp_path, tiny_encoder)
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
        kinds = {"O": "OTHER", "B-animal": "NOUN", "I-animal": "NOUN", "B-colour": "ADJ"}
        tagged = [{"tokens": row["tokens"], "ner_tags": [kinds[tag] for tag in row["ner_tags"]]} for row in rows]
        write_rows(tmp_path / f"{split}.jsonl", tagged)
    summary = train(recipe_from_dict({**recipe, "training": {**recipe["training"], "metric": "accuracy"}}))
    scores = summary["metrics"]["test"]
    assert scores["accuracy"] > 0.95
    assert scores["span_f1"] == pytest.approx(scores["accuracy"])
    assert [(e.text, e.label) for e in predict(tmp_path / "run", ["red cat"])[0]] == [("red", "ADJ"), ("cat", "NOUN")]


@pytest.mark.parametrize("strategy", ["gradual", *SLOW_STRATEGIES])
def test_every_strategy_trains_with_the_feature_cache_as_without_it(
    tmp_path: Path, tiny_encoder: Path, strategy: str
) -> None:
    weights = []
    for cache in ("on", "off"):
        recipe = words_recipe(
            tmp_path,
            tiny_encoder,
            strategy=strategy,
            training={"duration": "3ep", "feature_cache": {"on": "auto", "off": "off"}[cache]},
            output_dir=str(tmp_path / cache),
            optimizer={"lr": 1e-3},
            model={"dropout": 0.0, "head": {"dropout": 0.0}},
        )
        train(recipe_from_dict(recipe))
        weights.append(load_file(tmp_path / cache / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-4, msg=name)


def test_the_features_of_frozen_blocks_are_kept_for_every_token(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe_from_dict(words_recipe(tmp_path, tiny_encoder, strategy="head_only")))
    assert "feature cache: on, for the outputs of block 2" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_the_unbroken_one(tmp_path: Path, tiny_encoder: Path, run: Path) -> None:
    recipe = words_recipe(tmp_path, tiny_encoder, training={"checkpoint_every": "50st"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nlp_ft.training.loop.Loop._after_step", killed_after(170))
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe_from_dict(recipe))
    train(recipe_from_dict(recipe), resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_give_the_weights_and_scores_of_one(tmp_path: Path, tiny_encoder: Path) -> None:
    settings: dict[str, Any] = {
        "data": {"max_length": 8, "stride": 2},
        "model": {"dropout": 0.0, "head": {"dropout": 0.0}},
    }
    for name, size in (("one", 8), ("two", 4)):
        recipe = words_recipe(tmp_path, tiny_encoder, **settings, output_dir=str(tmp_path / name))
        # 26 rows in windows: the last effective batch is not full.
        write_rows(tmp_path / "train.jsonl", tagged_rows(26))
        recipe["training"] |= {"per_device_batch_size": size, "duration": "2ep", "keep": "last"}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(recipe))
    train(load_recipe(str(tmp_path / "one.yaml")))
    launched = launch([str(tmp_path / "two.yaml")])
    assert (tmp_path / "two").exists(), launched.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for parameter, tensor in one.items():
        torch.testing.assert_close(two[parameter], tensor, rtol=0, atol=1e-5, msg=parameter)
    of_one, of_two = (
        json.loads((tmp_path / n / "summary.json").read_text())["metrics"]["test"] for n in ("one", "two")
    )
    assert of_two == pytest.approx(of_one, abs=1e-5)


def test_counts_are_the_rows_that_have_a_type_and_a_verdict_names_a_type_that_is_never_predicted(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    outputs = TagOutputs(["O", "B-a", "I-a", "B-b"], "iob2")
    rows = np.array([[1, 2, 1, 0], [0, 3, 1, -100], [0, 0, -100, -100]])
    assert outputs.counts(rows) == {"a": 2, "b": 1}
    assert TagOutputs(["O", "x"], "none").counts(np.array([[1, 1], [0, -100]])) == {"x": 1}
    recipe = words_recipe(tmp_path, tiny_encoder, optimizer={"lr": 1e-6, "head_lr": 1e-6}, baselines=False)
    recipe["training"] |= {"duration": "1ep"}
    rare = {"tokens": ["the", "red"], "ner_tags": ["O", "B-rare"]}
    for split, number in (("train", 2), ("test", 4)):
        write_rows(tmp_path / f"{split}.jsonl", [*tagged_rows(40), *[rare] * number])
    train(recipe_from_dict(recipe))
    verdict = json.loads((tmp_path / "run/summary.json").read_text())["verdict"]
    assert "one_label_dominates" not in {remark["code"] for remark in verdict}


def test_layers_audit_and_validate_know_the_task(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = words_recipe(tmp_path, tiny_encoder, optimizer={"lr": None, "head_lr": None})
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert "classifier" in describe_layers(str(tmp_path / "recipe.yaml"))
    assert not audit_recipe(str(tmp_path / "recipe.yaml")).has_errors
    found = inspect_recipe(recipe_from_dict(recipe))
    assert found.problems == []
    assert {one.key for one in found.derived} >= {"optimizer.lr", "optimizer.head_lr"}


def test_balanced_class_weights_are_those_of_the_words(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = recipe_from_dict(words_recipe(tmp_path, tiny_encoder, loss={"class_weights": "balanced"}))
    task = task_of(recipe)
    counts = task.label_counts()
    rows = tagged_rows(200, 0)
    assert counts["B-colour"] == sum(tag == "B-colour" for row in rows for tag in row["ner_tags"])
    weights: Any = task.make_loss()
    expected = [sum(counts.values()) / (len(counts) * count) for count in counts.values()]
    assert weights.class_weights.tolist() == pytest.approx(expected)


def test_the_loss_is_the_mean_over_the_words_whatever_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, generator=generator)
    labels = torch.tensor([[-100, 1, -100, -100], [0, 2, 1, -100]])
    loss = TagLoss()
    parts = [(logits[:1], labels[:1]), (logits[1:], labels[1:])]
    mean = sum(float(loss.total(*part)) for part in parts) / sum(float(loss.weight(part[1])) for part in parts)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert mean == pytest.approx(float(expected))


def test_a_constant_answer_has_the_entropy_of_the_tags_where_rows_count_alike(run: Path) -> None:
    outputs = load_run(run).outputs
    references = np.array([[0, -100], [0, 1]])
    assert outputs.constant_loss(references) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"pooling": "mean"}}, "model.pooling mean is for whole texts"),
        ({"model": {"head": {"type": "bottleneck"}}}, "model.head.type must be linear for token_classification"),
        ({"training": {"metric": "matthews"}}, "training.metric matthews is no metric of token_classification"),
        ({"data": {"words": "ner_tags"}}, "words and label are one column"),
        ({"data": {"spans": "entities"}}, "spans needs text"),
        ({"data": {"max_length": 16, "stride": 15}}, "stride must leave room"),
        ({"data": {"scheme": "bilou"}}, "data.scheme"),
        ({"data": {"truncation": "head"}}, "data.truncation"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, tiny_encoder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_from_dict(words_recipe(tmp_path, tiny_encoder, **changes))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, r"input 0 \(from 0\) must be a text or a list of words, got 7"),
        (["the", " "], r"input 0 \(from 0\): word 1 \(from 0\) is ' ', which is blank"),
        (["the", 3], r"input 0 \(from 0\): word 1 \(from 0\) must be a text, got 3"),
        ("\ud800", r"input 0 \(from 0\) cannot be encoded as UTF-8"),
    ],
)
def test_inputs_that_are_no_words_are_refused(run: Path, item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predict(run, [item])


def test_a_run_of_texts_reads_the_texts_of_a_file_that_has_tokens_too(tmp_path: Path, tiny_encoder: Path) -> None:
    row = {"text": "the cat", "spans": [{"start": 4, "end": 7, "label": "animal"}], "tokens": [{"text": "the"}]}
    file = write_rows(tmp_path / "a.jsonl", [row] * 8)
    values = words_recipe(tmp_path, tiny_encoder)
    values["data"] = {"train": str(file), "text": "text", "spans": "spans"}
    values["training"] = {"duration": "1st", "precision": "fp32"}
    train(recipe_from_dict(values), overwrite=True)
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(tmp_path / "run"), "--file", str(file), "--output", str(tmp_path / "out.jsonl")])
    assert len(json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["predicted_tags"]) == 2
