"""Pretrained weights are accounted for, tensor by tensor; what is missing, damaged or a pickle is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_ft.errors import ModelError, RunFolderError
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.prediction.predict import load_run
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.text import TextModelSection
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe

Tensors = dict[str, torch.Tensor]
KEY = "encoder.layer.1.attention.self.query.weight"


def damaged(encoder: Path, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    shutil.copytree(encoder, folder)
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def built(folder: Path, labels: int = 2, notes: list[str] | None = None, **settings: Any) -> Any:
    section = TextModelSection.model_validate({"name": str(folder), **settings})
    say = notes.append if notes is not None else lambda note: None
    return build_classifier(section, [f"label {i}" for i in range(labels)], load_tokenizer(section), say=say)


def with_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


@pytest.mark.parametrize("pooling", ["auto", "mean"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {f"module.{k}": v for k, v in t.items()},
            "are missing from the weights, and would be random; it has",
        ),
        (lambda t: {k: v for k, v in t.items() if ".layer.1." not in k}, r"layer\.1\..* are missing from the weights"),
        (lambda t: {k: v for k, v in t.items() if k != KEY}, rf"{KEY} are missing from the weights"),
        (lambda t: {**t, KEY: t[KEY][:8]}, rf"{KEY} should have the shape \(16, 16\) .* it is \(8, 16\)"),
        (lambda t: {**t, KEY: t[KEY] / 0}, rf"{KEY} hold NaN or infinite values"),
        (lambda t: {**t, KEY: t[KEY].to(torch.int8)}, rf"{KEY} and 0 more hold whole numbers \(I8\)"),
        (lambda t: {}, "model.safetensors holds no tensor"),
    ],
    ids=["prefix", "block", "tensor", "shape", "nan", "int8", "empty"],
)
def test_weights_that_are_not_those_of_the_config_are_refused_by_name(
    tiny_encoder: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], message: str, pooling: str
) -> None:
    folder = damaged(tiny_encoder, tmp_path / "encoder", change)
    with pytest.raises(ModelError, match=message) as caught:
        built(folder, pooling=pooling)
    assert str(caught.value).startswith(f"model.name: {folder}: its weights cannot be used: ")


def test_more_blocks_in_the_config_than_in_the_weights_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    with_config(folder, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"encoder\.layer\.2\.\S+ and 15 more are missing from the weights"):
        built(folder)


def test_weights_without_a_place_are_said(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    with_config(folder, num_hidden_layers=1)
    notes: list[str] = []
    built(folder, notes=notes)
    assert len(notes) == 1
    assert notes[0].startswith("in the pretrained weights, but not used by this model: encoder.layer.1.")
    assert notes[0].endswith(" and 14 more")


def test_a_pooler_that_the_weights_lack_is_new_and_that_is_said(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = damaged(tiny_encoder, tmp_path / "e", lambda t: {k: v for k, v in t.items() if "pooler" not in k})
    notes: list[str] = []
    built(folder, notes=notes)
    assert notes == [
        "not in the pretrained weights, so random at first: bert.pooler.dense.bias, bert.pooler.dense.weight"
    ]


@pytest.mark.parametrize("pooling", ["auto", "max"])
def test_loaded_weights_lie_in_memory_of_their_own_at_multiples_of_64(tiny_encoder: Path, pooling: str) -> None:
    tensors = [*built(tiny_encoder, pooling=pooling).parameters()]
    assert {tensor.data_ptr() % 64 for tensor in tensors} == {0}


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("place", ["pytorch_model.bin", "../elsewhere.safetensors"])
def test_an_index_that_names_a_pickle_or_another_folder_is_refused_and_nothing_runs(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save({names[0]: Trap()}, folder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, place)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"names '{place}'; only safetensors files beside it are read"):
        built(folder)
    assert not Path("unpickled").exists()


def test_shards_beside_their_index_are_read(tiny_encoder: Path, tmp_path: Path) -> None:
    whole = built(tiny_encoder, pooling="mean")
    whole.encoder.save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    for file in tiny_encoder.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    again = built(tmp_path / "sharded", pooling="mean")
    expected = whole.encoder.state_dict()
    found = again.encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_an_adapter_is_refused_with_what_to_do(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/model"}))
    with pytest.raises(ModelError, match="holds an adapter, not a whole model; merge the two"):
        built(folder)


@pytest.fixture
def finished(tiny_encoder: Path, tmp_path: Path) -> Path:
    """A classifier of two labels as its makers saved it, with a head of ones."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=2)
    model.config.id2label, model.config.problem_type = {0: "no", 1: "yes"}, "regression"
    torch.nn.init.ones_(model.classifier.weight)
    model.save_pretrained(tmp_path / "finished")
    for file in tiny_encoder.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "finished")
    return tmp_path / "finished"


@pytest.mark.parametrize("labels", [2, 3])
def test_a_finished_classifier_gets_a_new_head_and_that_is_said(finished: Path, labels: int) -> None:
    notes: list[str] = []
    model = built(finished, labels, notes)
    weight = model.classifier.weight
    assert weight.shape == (labels, 16)
    assert 0 < float(weight.detach().std()) < 0.04
    assert model.config.problem_type is None
    assert notes == [
        f"{finished} is a finished classifier; a new head replaces its own (model.keep_head: true keeps it)"
    ]
    pooler = load_file(finished / "model.safetensors")["bert.pooler.dense.weight"]
    assert torch.equal(model.bert.pooler.dense.weight, pooler)


def test_keep_head_keeps_it_for_the_same_labels_in_the_same_order_alone(finished: Path, tiny_encoder: Path) -> None:
    def kept(folder: Path, labels: list[str], **settings: Any) -> PreTrainedModel:
        section = TextModelSection.model_validate({"name": str(folder), "keep_head": True, **settings})
        return build_classifier(section, labels)

    assert set(kept(finished, ["no", "yes"]).classifier.weight.flatten().tolist()) == {1.0}  # type: ignore[union-attr,operator]
    for labels in (["yes", "no"], ["no", "yes", "maybe"]):
        with pytest.raises(ModelError, match=r"has 2 labels, no, yes, but the data have .*; list those of the head in"):
            kept(finished, labels)
    with pytest.raises(
        ModelError, match=r"keep_head: the weights of .* hold no classifier.weight; leave keep_head out"
    ):
        kept(tiny_encoder, ["a", "b"])
    with pytest.raises(ModelError, match=r"keep_head needs pooling: auto and head.type: linear"):
        kept(finished, ["no", "yes"], pooling="mean")


@pytest.fixture(scope="module")
def run(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, training={"duration": "1st"})))
    return folder / "run"


def test_a_run_folder_without_the_tensors_of_its_head_is_refused(run: Path, tmp_path: Path) -> None:
    def without_head(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}

    with pytest.raises(
        RunFolderError, match=r"its model is damaged: head\.\S+ and 1 more are missing from the weights"
    ):
        load_run(damaged(run, tmp_path / "run", without_head))
    more = damaged(run, tmp_path / "more", lambda t: {**t, "other": torch.ones(1)})
    with pytest.raises(
        RunFolderError, match=r"its weights hold other, which the model of its config.json has no place"
    ):
        load_run(more)


@pytest.mark.parametrize("recipe_trusts", [False, True])
def test_code_in_a_run_folder_runs_for_the_callers_flag_alone_and_nothing_asks(
    run: Path, tmp_path: Path, recipe_trusts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    (folder / "evil.py").write_text(code + "class Config:\n    pass\nclass Model:\n    pass\n")
    with_config(folder, model_type="unknown", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(
        recipe.replace("remote_code: false", f"remote_code: {str(recipe_trusts).lower()}")
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(RunFolderError, match="its model is damaged"):
        load_run(folder)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(RunFolderError):
        load_run(folder, trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_a_tokenizer_that_its_library_does_not_know_is_named(tiny_encoder: Path, tmp_path: Path) -> None:
    """The library of tokenizers raises bare exceptions."""
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**values, "normalizer": {"type": "Nonsense"}}))
    with pytest.raises(ModelError, match=r"its tokenizer cannot be loaded: data did not match any variant"):
        built(folder)


def test_a_config_of_a_million_blocks_is_refused_before_they_are_built(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    with_config(folder, num_hidden_layers=10**6)
    with pytest.raises(ModelError, match=r"num_hidden_layers must be a whole number of at most 1000, got 1000000"):
        built(folder)


def test_a_switch_of_the_config_that_is_a_text_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    with_config(folder, output_hidden_states="yes")
    with pytest.raises(ModelError, match=r"output_hidden_states('| must be true or false).*'yes'"):
        built(folder)
