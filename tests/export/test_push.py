"""`nlp-ft push` against a stand-in of the Hub: what goes up, what stays, and what a broken connection leaves."""

import csv
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.utils._http
import pytest
from huggingface_hub import ModelCard, constants
from transformers import AutoModelForSequenceClassification, pipeline

from nlp_ft.cli import main
from nlp_ft.errors import HubError, NlpFtError, RunFolderError
from nlp_ft.export.hub_card import hub_card
from nlp_ft.export.hub_files import _replaced, hub_files
from nlp_ft.export.push import push_files, require_repo_id
from nlp_ft.prediction.predict import predict
from nlp_ft.recipe.loader import dump_yaml, read_yaml, recipe_from_dict
from nlp_ft.report.run_files import RECIPE, SUMMARY
from nlp_ft.training.run import train
from tests.export.stand_in import StandIn, stand_in
from tests.tiny import tiny_recipe

REPO = "me/mine"
UP = {
    "README.md",
    "config.json",
    "model.safetensors",
    "recipe.yaml",
    "summary.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A run with nlp_ft's head, and a file that somebody has put into its folder."""
    folder = tmp_path_factory.mktemp("push")
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, training={"duration": "2st"}, baselines=False)))
    (folder / "run/notes.txt").write_text("ours")
    (folder / "run/own.py").write_text("")
    return folder / "run"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A Hub that answers, and a token for it."""
    with stand_in() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        # The client waits between its attempts.
        monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
        yield found


def push(run: Path, *options: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["push", str(run), REPO, *options])


def test_one_commit_has_the_files_that_a_client_needs_and_no_others(
    run: Path, hub: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    push(run)
    [created], [files] = hub.created, hub.commits
    assert (created["organization"], created["name"], hub.tokens) == ("me", "mine", {"Bearer hf_secret"})
    assert created.get("visibility") == "private" or created.get("private") is True
    assert files.keys() == UP
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"model: {hub.endpoint}/{REPO} (private)" in printed
    assert "stays here: layers.txt, metrics.jsonl, notes.txt, own.py, test_confusion_matrix.csv" in printed


def test_no_text_of_a_row_and_no_folder_of_this_machine_goes_up(run: Path, tiny_encoder: Path, hub: StandIn) -> None:
    push(run)
    [files] = hub.commits
    texts = set()
    for split in ("train", "validation", "test"):
        with (run.parent / f"{split}.csv").open(newline="", encoding="utf-8") as stream:
            texts |= {row["text"] for row in csv.DictReader(stream) if row["text"].count(" ") > 1}
    assert len(texts) > 30
    for name, content in files.items():
        said = content.decode("utf-8", "replace")
        assert [text for text in texts if text in said] == [], name
        assert [place for place in (run.parent, tiny_encoder) if str(place) in said] == [], name
    assert "train: train.csv\n" in files["recipe.yaml"].decode()
    assert "\noutput_dir: run\n" in files["recipe.yaml"].decode()


def test_paths_that_yaml_folds_and_a_shell_quotes_are_taken_out(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    folder = f"/srv/{'a client of ours/' * 8}"
    recipe = dict(read_yaml(run / RECIPE))
    changed = {"data": {**recipe["data"], "train": [f"{folder}it's one.csv", "/out"]}, "output_dir": "/out"}
    (tmp_path / "copy" / RECIPE).write_text(dump_yaml({**recipe, **changed}))
    summary = json.loads((run / SUMMARY).read_text())
    command = shlex.join(["nlp-ft", "train", f"{folder}r.yaml", f"data.train=[{folder}it's one.csv]"])
    changed = {"command": command, "verdict": [{"code": "x", "says": "in/out, not /out/", "do": ""}]}
    (tmp_path / "copy" / SUMMARY).write_text(json.dumps({**summary, **changed}))
    files = hub_files(str(tmp_path / "copy"), REPO, None).contents
    found = {name: content for name, content in files.items() if isinstance(content, bytes)}
    assert [name for name, content in found.items() if b"client" in content] == []
    pushed = json.loads(found[SUMMARY])
    assert shlex.split(pushed["command"]) == ["nlp-ft", "train", "r.yaml", "data.train=[it's one.csv]"]
    assert pushed["verdict"][0]["says"] == "in/out, not out/"
    assert {**summary, "command": None, "verdict": None} == {**pushed, "command": None, "verdict": None}


def test_the_weights_that_an_image_network_began_with_are_named_without_their_folder() -> None:
    recipe = {"data": {}, "model": {"name": "resnet18", "weights": "/home/me/old.safetensors"}, "output_dir": "runs/a"}
    assert _replaced(Path("/home/me/runs/a"), recipe, {}, []) == {
        "/home/me/old.safetensors": "old.safetensors",
        "/home/me/runs/a": "a",
    }


def test_what_was_pushed_predicts_as_the_run_does(run: Path, hub: StandIn, tmp_path: Path) -> None:
    push(run)
    for name, content in hub.commits[0].items():
        (tmp_path / name).write_bytes(content)
    texts = ["the cat", "red red"]
    expected = predict(run, texts)
    assert predict(tmp_path, texts) == expected
    found: Any = pipeline("text-classification", model=str(tmp_path))(texts)
    assert [one["label"] for one in found] == [one.label for one in expected]
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.num_labels == 3


def test_the_card_has_the_metadata_that_the_hub_reads(run: Path, hub: StandIn) -> None:
    push(run, "--license", "apache-2.0")
    card = ModelCard(hub.commits[0]["README.md"].decode())
    data: Any = card.data
    assert (data.license, data.pipeline_tag, data.library_name) == ("apache-2.0", "text-classification", "nlp_ft")
    summary = json.loads((run / "summary.json").read_text())
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {
        (split, kind): round(summary["metrics"][split][name], 4)
        for split in ("validation", "test")
        for kind, name in (("accuracy", "accuracy"), ("f1", "macro_f1"))
    }
    margin = summary["margins"]["test"]["accuracy"]
    names = {one.metric_name for one in data.eval_results if one.dataset_split == "test"}
    assert f"accuracy (seed 0, 95 % interval ± {margin:.4f})" in names
    assert f'pipeline("text-classification", model="{REPO}")' in card.text
    assert f"| train | 50 | `{summary['data_hashes']['train']}` |" in card.text
    assert "PATH/TO" not in card.text


def test_scores_name_the_split_of_the_hub_that_was_scored() -> None:
    recipe = {"data": {"source": "org/data", "train": "train", "validation": "10%", "test": "validation"}}
    scores = {split: {"accuracy": 0.5} for split in ("validation", "test")}
    summary = {"seed": 3, "metrics": scores, "margins": scores}
    text = '---\npipeline_tag: text-classification\ndatasets: ["org/data"]\n---\n\n# T\n'
    data: Any = ModelCard(hub_card(text, REPO, None, recipe, summary)).data
    assert [one.dataset_split for one in data.eval_results] == ["10% of train", "validation"]
    # Data that somebody has named in the card: the files of the recipe are no splits of them.
    of_files = {"data": {"source": None, "train": "/home/me/train.csv", "test": "/home/me/test.csv"}}
    data = ModelCard(hub_card(text, REPO, None, of_files, summary)).data
    assert [one.dataset_split for one in data.eval_results] == ["validation", "test"]


@pytest.mark.parametrize("datasets", ['["org/data"]', "org/data", '["org/data", "org/more"]'])
def test_base_model_and_data_are_named_where_they_are_on_the_hub(datasets: str) -> None:
    recipe = {"data": {"source": "org/data", "config": "small"}, "model": {"name": "org/bert"}}
    summary = {"seed": 3, "metrics": {"test": {"matthews": 0.5}}, "margins": {"test": {"matthews": 0.1, "f1": 0.1}}}
    on_hub = f'base_model: "org/bert"\ndatasets: {datasets}\n'
    text = f"---\nlicense: mit\npipeline_tag: text-classification\n{on_hub}---\n\n# T\n"
    data: Any = ModelCard(hub_card(text, REPO, None, recipe, summary)).data
    assert (data.base_model, data.license) == ("org/bert", "mit")
    [result] = data.eval_results
    assert (result.dataset_type, result.dataset_config, result.metric_type) == (
        "org/data",
        "small",
        "matthews_correlation",
    )
    # Pushed from another folder than that of the training, a path looks like an id.
    local = {"data": {"source": "data/train.csv"}, "model": {"name": "models/bert"}}
    data = ModelCard(hub_card("# T\n", REPO, None, local, {"metrics": {}})).data
    assert (data.license, data.base_model, data.datasets) == ("unknown", None, None)


def test_a_dry_run_shows_files_sizes_and_card_and_asks_nothing(
    run: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    push(run, "--dry-run")
    printed = capsys.readouterr().out
    assert hub.asked == []
    size = (run / "model.safetensors").stat().st_size
    assert f"model.safetensors  {size / 1000:,.0f}" in " ".join(printed.split()).replace(
        "safetensors ", "safetensors  "
    )
    assert "license: unknown\n" in printed
    assert "## Limits\n" in printed


@pytest.mark.parametrize("place", ["/repos/create", "/preupload/", "/objects/batch", "/store/", "/commit/"])
def test_a_connection_that_breaks_publishes_nothing_and_the_same_command_goes_on(
    run: Path, hub: StandIn, place: str
) -> None:
    files = hub_files(str(run), REPO, None)
    hub.breaks_at = place
    with pytest.raises(HubError, match="No file of this push is published, as all come in one commit"):
        push_files(files, REPO)
    assert any(place in path for path in hub.asked)
    assert hub.commits == []
    hub.breaks_at = None
    assert push_files(files, REPO) == (f"{hub.endpoint}/{REPO}", True)
    assert [set(commit) for commit in hub.commits] == [UP]


def test_a_public_model_is_not_filled_by_a_private_push(run: Path, hub: StandIn) -> None:
    hub.is_public = True
    with pytest.raises(HubError, match="me/mine can be seen by all; pass --public"):
        push_files(hub_files(str(run), REPO, None), REPO)
    assert (hub.commits, hub.stored) == ([], {})
    push(run, "--public")
    assert hub.created[-1].get("visibility") == "public" or hub.created[-1].get("private") is False
    assert len(hub.commits) == 1


def test_a_refused_token_is_named(run: Path, hub: StandIn) -> None:
    hub.refuses = True
    with pytest.raises(HubError, match=r"the Hub refuses the token for me/mine \(403\)"):
        push_files(hub_files(str(run), REPO, None), REPO)


def test_without_a_token_there_is_one_message(run: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(HubError, match="run `hf auth login`, or set HF_TOKEN to a token that may write"):
        push_files(hub_files(str(run), REPO, None), REPO)
    assert hub.asked == []


def test_code_goes_up_with_a_class_of_its_own(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "copy/config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Model"}}))
    assert hub_files(str(tmp_path / "copy"), REPO, None).contents.keys() == UP | {"own.py"}


@pytest.mark.parametrize("repo_id", ["mine", "a/b/c", "me/", "me/a b", ""])
def test_a_place_that_is_none_is_refused(repo_id: str) -> None:
    with pytest.raises(HubError, match="the place on the Hub must be ORG/NAME"):
        require_repo_id(repo_id)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("model.safetensors", "it has no model.safetensors"),
        ("README.md", "it has no README.md"),
        ("summary.json", "is not a finished run"),
    ],
)
def test_what_is_no_whole_run_is_refused(run: Path, tmp_path: Path, change: str, says: str) -> None:
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / change).unlink()
    with pytest.raises(RunFolderError, match=says):
        hub_files(str(tmp_path / "copy"), REPO, None)


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.safetensors", "its model is damaged"), ("tokenizer.json", "it has no tokenizer")],
)
def test_what_cannot_be_loaded_is_not_pushed(
    run: Path, tmp_path: Path, name: str, says: str, hub: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "copy")
    content = (run / name).read_bytes()
    (tmp_path / "copy" / name).unlink()
    if name.endswith(".safetensors"):
        (tmp_path / "copy" / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit, match="2"):
        main(["push", str(tmp_path / "copy"), REPO])
    assert says in capsys.readouterr().err
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("export.json", "{}", "is an export; push the run that it came from"),
        ("config.json", "[]", "its config.json is damaged: it is no section"),
        ("recipe.yaml", "data: {}", "recipe.yaml: "),
        ("README.md", "---\na: [\n---\n", "README.md: the metadata between its --- cannot be read"),
    ],
)
def test_a_damaged_file_is_named(run: Path, tmp_path: Path, name: str, content: str, says: str) -> None:
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / name).write_text(content)
    with pytest.raises(NlpFtError, match=says):
        hub_files(str(tmp_path / "copy"), REPO, None)
