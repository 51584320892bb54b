"""Reports of runs: what stands in them, that texts are escaped or left out, and what a browser shows."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import dump_yaml
from nlp_ft.report.calibration import calibration, coverage
from nlp_ft.report.compare import band, describe_runs, interval_of_mean
from nlp_ft.report.figures import figures_of_run
from nlp_ft.report.rows import marked_words, read_rows
from nlp_ft.report.splits import by_length, describe_split
from nlp_ft.report.summary import describe_run
from nlp_ft.report.write import format_of, render_run, report_file, save, write_comparison, write_report
from tests.report.browser import browser, measure

HOSTILE = '<script>alert("x")</script> & $x^2$ \x1b[31m'
LABELS = ("card & <b>cash</b>", "app", "fees")
PROGRAM = browser()
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no browser is installed: chromium or google-chrome")


def write_table(file: Path, rows: list[list[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def make_run(folder: Path, *, seed: int = 0, lr: float = 1e-4, score: float = 0.75, rows: int = 4) -> Path:
    """A run folder of three labels and two phases, without a model."""
    folder.mkdir(parents=True)
    recipe = {"task": "text_classification", "optimizer": {"lr": lr}, "seed": seed, "output_dir": str(folder)}
    (folder / "recipe.yaml").write_text(dump_yaml({**recipe, "training": {"metric": "accuracy"}}))
    summary = {
        "strategy": "gradual",
        "seed": seed,
        "metric": "accuracy",
        "metrics": {split: {"loss": 0.5, "accuracy": score} for split in ("validation", "test")},
        "margins": {"test": {"accuracy": 0.05}},
        "baselines": {"test": {"majority": {"accuracy": 0.5}}},
        "verdict": [{"code": "fine", "says": f"Beats the baseline. {HOSTILE}", "do": ""}],
        "phases": [
            {"step": 0, "layers": "head", "why": "the run began"},
            {"step": 10, "layers": "head, block 1", "why": "loss on a plateau for 2 evaluation(s)"},
        ],
        "data": {
            "train": {"rows": 8, "median_tokens": 9.5},
            "validation": {"median_tokens": 7.0},
            "test": {"rows": 4, "median_tokens": 7.0},
        },
        "train_seconds": 1.5,
        "command": "nlp-ft train recipe.yaml",
        "versions": {"torch": "2.0"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    rates = {"head": 1e-2, "block 1": lr}
    records = [
        {"step": step, "epoch": 1, "phase": 1, "loss": 1 / step, "learning_rates": rates} for step in (5, 10, 20)
    ]
    scores = [
        {"step": step, "validation": {"loss": 0.6, "accuracy": step / 40, "confidence": step / 25}} for step in (10, 20)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*records, *scores]))
    layers = {
        "gradient_norm": rates,
        "update_ratio": rates,
        "drift": rates,
        "seconds": {"forward": 1.0, "backward": 3.0},
    }
    (folder / "layers.jsonl").write_text("".join(json.dumps({"step": step, **layers}) + "\n" for step in (1, 20)))
    found = [
        [7, HOSTILE, LABELS[0], LABELS[1], 0.95, 3.0],
        [3, "a text", LABELS[1], LABELS[2], 0.6, 2.0],
        *([row + 10, "the fees " * 60, LABELS[2], LABELS[2], 0.9, 0.1] for row in range(rows - 2)),
    ]
    header = ["row", "text", "reference", "predicted", "score", "loss"]
    for split in ("validation", "test"):
        write_table(folder / f"{split}_predictions.csv", [header, *found])
        per_class = [[label, 1.0, 0.5, 0.25, 2.0] for label in LABELS]
        write_table(folder / f"{split}_per_class.csv", [["label", "precision", "recall", "f1", "support"], *per_class])
        matrix = [[label, *(1 if i == j else 2 * j for j in range(3))] for i, label in enumerate(LABELS)]
        write_table(folder / f"{split}_confusion_matrix.csv", [["true label", *LABELS], *matrix])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "gradual_run")


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    write_report(run, run / "report.html")
    return run / "report.html"


def test_calibration_is_that_of_a_case_counted_by_hand() -> None:
    found = calibration([0.95, 0.85, 0.95, 0.55], [True, False, True, True])
    # Bins: (0.5, 0.6] 1 row, 0.55 against 1; (0.8, 0.9] 1 row, 0.85 against 0; (0.9, 1] 2 rows, 0.95 against 1.
    assert found["ece"] == pytest.approx((0.45 + 0.85 + 2 * 0.05) / 4)
    assert [(one["rows"], one["share_right"]) for one in found["bins"]] == [(1, 1.0), (1, 0.0), (2, 1.0)]
    assert calibration([0.5, 0.0, 1.0], [True] * 3, 2)["bins"][0]["rows"] == 2  # 0.5 is in the bin that ends there


def test_coverage_is_that_of_a_case_counted_by_hand() -> None:
    found = coverage([0.6, 0.9, 0.8, 0.8, 0.7], [False, True, True, False, True])
    # The two rows of 0.8 are kept together.
    assert [list(point.values()) for point in found["points"]] == [
        [0.2, 1.0, 0.9],
        [0.6, pytest.approx(2 / 3), 0.8],
        [0.8, 0.75, 0.7],
        [1.0, 0.6, 0.6],
    ]
    assert [point["kept"] for point in found["shown"]] == [1.0, 0.8, 0.6]
    many = coverage([row / 1000 for row in range(1000)], [True] * 1000)
    assert (len(many["points"]), many["points"][0]["kept"], many["points"][-1]["kept"]) == (200, 0.001, 1.0)


def test_a_report_shows_what_is_right_among_the_kept_rows(tmp_path: Path) -> None:
    run = describe_run(make_run(tmp_path / "run"))
    assert "| 75.0% | 66.7% | 0.9000 |\n" in render_run(run, "md")
    assert "| 100.0% | 50.0% | 0.6000 |\n" in render_run(run, "md")


def test_the_answer_comes_with_its_interval_and_its_baselines(run: Path) -> None:
    found = describe_run(run)
    assert found["answer"] == {
        "split": "test",
        "metric": "accuracy",
        "value": 0.75,
        "margin": 0.05,
        "rows": 4,
        "baselines": {"majority": 0.5},
    }
    assert found["phases"][1]["why"] == "loss on a plateau for 2 evaluation(s)"
    assert found["step_time"] == {"forward": 0.25, "backward": 0.75}
    assert found["layers"]["drift"] == {"head": [[1, 0.01], [20, 0.01]], "block 1": [[1, 1e-4], [20, 1e-4]]}


def test_mistakes_are_the_most_confident_first_and_doubtful_labels_are_marked(run: Path) -> None:
    found = describe_run(run)["splits"]["test"]
    assert [(one["row"], one["perhaps_mislabelled"]) for one in found["mistakes"]] == [("7", True), ("3", False)]
    assert [(one["row"], one["is_right"]) for one in found["hardest"]] == [("10", True), ("11", True)]
    assert found["share_right"] == 0.5
    assert found["confusion"]["pairs"][0] == {"true": LABELS[0], "predicted": LABELS[2], "rows": 4}


def test_spans_are_marked_in_their_words() -> None:
    words = ["Ada", "Lovelace", "Bob", "met", "Rome"]
    assert marked_words(words, ["B-person", "I-person", "B-person", "O", "place"]) == [
        {"text": "Ada Lovelace", "span": "person"},
        {"text": "Bob", "span": "person"},
        {"text": "met", "span": None},
        {"text": "Rome", "span": "place"},
    ]


def test_an_answer_is_right_if_it_is_one_of_those_accepted(tmp_path: Path) -> None:
    header = [
        "row",
        "context",
        "reference",
        *(f"predicted_{name}" for name in ("answer", "score", "start", "end")),
        "loss",
    ]
    lines = [
        [0, "in the old town", "old town | town", "town", 0.8, 11, 15, 0.1],
        [1, "here", "here", "", 0.7, "", "", 2],
    ]
    write_table(tmp_path / "test_predictions.csv", [header, *lines])
    (tmp_path / "test_by_question_word.csv").write_text("question_word,questions\n")
    rows = read_rows(tmp_path / "test_predictions.csv")
    assert [row.is_right for row in rows] == [True, False]
    assert [row.place for row in rows] == [(11, 15), None]


def test_a_column_called_reference_is_an_input(tmp_path: Path) -> None:
    header = ["row", "reference", "reference_2", "predicted_2", "loss_2"]
    write_table(tmp_path / "test_predictions.csv", [header, [0, "a text", "yes", "no", 1.5]])
    [row] = read_rows(tmp_path / "test_predictions.csv")
    assert (row.columns, row.reference, row.predicted, row.loss) == ({"reference": "a text"}, "yes", "no", 1.5)


def test_the_number_of_a_row_stands_first_also_beside_an_input_called_row(tmp_path: Path) -> None:
    header = ["row_2", "row", "reference", "predicted", "score", "loss"]
    write_table(tmp_path / "test_predictions.csv", [header, ["4", "a secret text", "x", "y", "0.9", "1.0"]])
    [row] = read_rows(tmp_path / "test_predictions.csv")
    assert (row.number, row.columns) == ("4", {"row": "a secret text"})


def test_names_of_labels_stay_as_they_are(tmp_path: Path) -> None:
    lines = [["0", "0.5", "3"], ["007", "1.0", "4"], ["1e3", "0.0", "5"]]
    write_table(tmp_path / "test_per_class.csv", [["label", "f1", "rows"], *lines])
    found = describe_split(tmp_path, "test", 0, texts=True, has_lengths=True)
    assert found["table"]["rows"] == [["0", 0.5, 3], ["007", 1.0, 4], ["1e3", 0.0, 5]]


def test_the_command_of_a_run_whose_name_has_a_blank_is_one_that_a_shell_reads(tmp_path: Path) -> None:
    again = describe_run(make_run(tmp_path / "my run"))["again"]
    assert again == "nlp-ft train 'my run/recipe.yaml' output_dir=NEW"


def test_lengths_are_groups_of_about_equal_size(run: Path) -> None:
    groups = by_length(read_rows(run / "test_predictions.csv"), 2)
    assert [(one["from"], one["to"], one["rows"], one["share_right"]) for one in groups] == [
        (6, len(HOSTILE), 2, 0.0),
        (540, 540, 2, 1.0),
    ]


def test_texts_are_escaped_wherever_they_stand(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; $x^2$ \\x1b[31m" in text
    assert "<b>cash</b>" not in text
    assert len(re.findall(r"<text[^>]*>card &amp; &lt;b&gt;cash&lt;/b&gt;</text>", text)) == 4  # two confusion matrices
    assert re.search(r"(src|href)=\"(?!#|data:,)", text) is None, "a report loads nothing"


def test_no_texts_leaves_out_texts_and_keeps_scores(run: Path, tmp_path: Path) -> None:
    for form in ("html", "md", "json"):
        write_report(run, tmp_path / f"report.{form}", form, texts=False)
        text = (tmp_path / f"report.{form}").read_text()
        assert "the fees" not in text
        assert "a text" not in text
        assert "0.75" in text


def test_html_markdown_and_json_say_the_same(run: Path) -> None:
    found = describe_run(run)
    assert json.loads(render_run(found, "json")) == json.loads(json.dumps(found))
    for form in ("html", "md"):
        text = render_run(found, form)
        for said in ("0.7500 ± 0.0500", "0.2500", "loss on a plateau for 2 evaluation", "nlp-ft train recipe.yaml"):
            assert said in text.replace("\\", ""), (form, said)


@pytest.mark.slow
def test_a_report_of_many_rows_stays_below_one_megabyte(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "large", rows=3000)
    file = folder / "test_predictions.csv"
    lines = [[row, "<&>" * 200_000, "app", "fees", 0.99, 9.0] for row in range(25)]
    write_table(file, [["row", "text", "reference", "predicted", "score", "loss"], *lines])
    write_report(folder, tmp_path / "report.html")
    assert 50_000 < (tmp_path / "report.html").stat().st_size < 1_000_000


def test_every_figure_has_an_alt_text_with_its_numbers(page: Path) -> None:
    labels = re.findall(r'<svg viewBox="[^"]*" style="[^"]*" role="img" aria-label="([^"]*)"', page.read_text())
    assert len(labels) == page.read_text().count("<svg") == 16
    assert (
        "Line chart: the training loss goes from 0.2 to 0.05 at step 20. On validation it is 0.6 at the end, "
        in labels[0]
    )
    confidence = "Line chart on validation: confidence goes from 0.4000 to 0.8000; accuracy goes from 0.2500 to 0.5000."
    assert confidence in labels
    said = "of the surest 100% of the rows, 50.0%; of the surest 75% of the rows, 66.7%."
    assert f"Line chart of the share that is right: {said}" in labels
    assert "Bar chart of the time of a step: forward 25%, backward 75%." in labels


def test_runs_that_differ_in_the_seed_alone_form_a_group_with_an_interval(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"seed_{seed}", seed=seed, score=score) for seed, score in enumerate((0.7, 0.8, 0.9))
    ]
    found = describe_runs([*folders, make_run(tmp_path / "other", lr=2e-4)])
    assert [(group["name"], group["runs"]) for group in found["groups"]] == [
        ("lr 0.0001, 3 seeds", ["seed_0", "seed_1", "seed_2"]),
        ("other", ["other"]),
    ]
    group = found["groups"][0]
    assert group["mean"] == pytest.approx(0.8)
    # t with 2 degrees of freedom is 4.3027 at 97.5 %; the deviation is 0.1.
    assert group["interval"] == pytest.approx([0.8 - 4.3027 * 0.1 / 3**0.5, 0.8 + 4.3027 * 0.1 / 3**0.5], abs=1e-5)
    assert found["differ"]["rows"] == [
        ["optimizer.lr", "0.0001", "0.0001", "0.0001", "0.0002"],
        ["seed", "0", "1", "2", "0"],
    ]
    [twin] = describe_runs([folders[0], make_run(tmp_path / "twin", score=0.7)])["groups"]
    assert (twin["name"], twin["interval"]) == ("2 runs", None)
    assert interval_of_mean([0.5]) is None
    assert band([[[1, 0.0], [2, 1.0]], [[2, 3.0], [3, 9.0]]]) == [[2, 2.0, 1.0, 3.0]]


def test_runs_whose_rows_have_changed_are_no_group_and_the_report_says_so(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"seed_{seed}", seed=seed) for seed in range(3)]
    for folder, of_test in zip(folders, ("a" * 32, "a" * 32, "b" * 32), strict=True):
        summary = json.loads((folder / "summary.json").read_text())
        summary["data_hashes"] = {"train": "c" * 32, "test": of_test}
        (folder / "summary.json").write_text(json.dumps(summary))
    found = describe_runs(folders)
    assert [group["runs"] for group in found["groups"]] == [["seed_0", "seed_1"], ["seed_2"]]
    assert ["rows of test", "a" * 8, "a" * 8, "b" * 8] in found["differ"]["rows"]
    assert [row[0] for row in found["differ"]["rows"]] == ["seed", "rows of test"]


@pytest.mark.parametrize(("file", "runs"), [("comparison.json", "cells"), ("tune.json", "trials")])
def test_the_folder_of_a_study_says_where_its_runs_are(file: str, runs: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(RunFolderError, match=f"whose runs lie in {re.escape(str(tmp_path / runs))}; name one of these"):
        describe_run(tmp_path)


def test_a_run_that_is_none_or_named_twice_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RunFolderError, match=r"is not a finished run that can be read.*name a folder that nlp-ft train"
    ):
        describe_run(tmp_path)
    with pytest.raises(RunFolderError, match="gradual_run is named twice; name each run once"):
        describe_runs([run, run])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", '{"metrics": {"test": {"accuracy": "high"}}, "verdict": [3]}'),
        ("layers.jsonl", '{"step": 1, "drift": 3}'),
        ("metrics.jsonl", '{"step": 1'),
        ("test_predictions.csv", "row,reference\n\xff"),
        ("test_confusion_matrix.csv", "true label,a\na,many\n"),
    ],
)
def test_a_damaged_file_is_one_clear_error(file: str, content: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(
        RunFolderError, match=r"run holds a damaged file: |run.metrics\.jsonl, line 1: must be a JSON object"
    ):
        describe_run(folder)


def test_the_command_writes_next_to_the_run_and_says_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink(missing_ok=True)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "--no-texts"])
    assert ended.value.code == 0
    assert re.fullmatch(rf"report: {run}/report.html \(\d+ kB\)\n", capsys.readouterr().out)
    write_report(run, run / "report.html")


def test_a_file_that_exists_is_kept_unless_it_is_the_runs_own_report(run: Path, page: Path, tmp_path: Path) -> None:
    assert report_file([str(run)], None, "html", False) == page
    (tmp_path / "a.md").touch()
    with pytest.raises(RunFolderError, match=r"a\.md exists; choose another, or pass --overwrite to replace it"):
        report_file([str(run)], str(tmp_path / "a.md"), "md", False)
    assert report_file([str(run)], str(tmp_path / "a.md"), "md", True) == tmp_path / "a.md"
    assert (format_of("a.json", None), format_of(None, None), format_of("a.txt", "md")) == ("json", "html", "md")
    with pytest.raises(RunFolderError, match=r"a\.txt must end in \.html, \.md or \.json"):
        format_of("a.txt", None)


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_all_of_it_at_the_width_of_a_screen_and_of_a_phone(page: Path, run: Path, width: int) -> None:
    assert PROGRAM is not None
    other = make_run(page.parent.with_name(f"other_{width}"), seed=1)
    write_comparison([run, other], other / "compared.html")
    for file, num_figures in ((page, 13), (other / "compared.html", 4)):
        found = measure(PROGRAM, file, width)
        assert found["console"] == []
        assert found["scrollWidth"] <= found["width"] == width
        assert (found["wide"], found["cut"]) == ([], [])
        assert (found["svgs"], found["unnamed"], found["headings"], found["scripts"]) == (num_figures, 0, 1, 0)


@needs_browser
def test_the_page_is_dark_where_the_screen_is_dark(page: Path) -> None:
    assert PROGRAM is not None
    assert measure(PROGRAM, page, 800, dark=True)["color"] == "rgb(20, 24, 29)"
    assert measure(PROGRAM, page, 800)["color"] == "rgb(255, 255, 255)"


@pytest.mark.slow
def test_a_report_shows_the_score_of_a_probe_on_each_layer_and_leaves_it_out_of_other_runs(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain")
    assert ("probe" in figures_of_run(describe_run(plain)), "## Features" in render_run(describe_run(plain), "md")) == (
        False,
        False,
    )
    layers = [
        {"name": "embeddings", "score": 0.5, "standard_error": 0.1, "chosen": False},
        {"name": "block 1", "score": 0.75, "standard_error": 0.05, "chosen": True},
    ]
    probe = {"layer": 1, "classifier": "logistic", "penalty": 0.1, "metric": "macro_f1", "layers": layers}
    summary = json.loads((plain / "summary.json").read_text())
    (plain / "summary.json").write_text(json.dumps({**summary, "probe": probe}))
    run = describe_run(plain)
    figure = figures_of_run(run)["probe"]
    assert figure["alt"] == (
        "Dot plot of macro f1 in cross-validation. embeddings: 0.5000 ± 0.1000; block 1: 0.7500 ± 0.0500."
    )
    assert "| embeddings | 0.5000 | 0.1000 |  |\n| block 1 | 0.7500 | 0.0500 | chosen |\n\n" in render_run(run, "md")
    assert '<section id="probe"><h2>Features</h2>' in render_run(run, "html")


def test_one_layer_of_a_probe_is_a_row_of_its_table_and_no_figure(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    layers = [{"name": "input of the head", "score": None, "standard_error": None, "chosen": True}]
    probe = {"layer": 0, "classifier": "svm", "penalty": 0.01, "metric": "accuracy", "layers": layers}
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "probe": probe}))
    run = describe_run(folder)
    assert "probe" not in figures_of_run(run)
    assert "| input of the head | - | - | chosen |" in render_run(run, "md")


def test_a_report_that_cannot_be_written_leaves_the_one_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    save("whole", file)
    with pytest.raises(UnicodeEncodeError):
        save("\ud800", file)
    (tmp_path / "report.html.writing").mkdir()  # as good as a full disk: it cannot be written
    with pytest.raises(RunFolderError, match=r"--output: .*report\.html: "):
        save("other", file)
    assert file.read_text() == "whole"
