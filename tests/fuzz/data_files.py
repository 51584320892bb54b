"""Broken data files: damaged bytes and odd structures in CSV, TSV, JSON Lines, Parquet, zip and image files."""

import csv
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.damage import damage_file, damaged
from tests.fuzz.driver import Trial

ROWS = [
    ("the cat", "animal"),
    ("the dog", "animal"),
    ("red", "colour"),
    ("blue", "colour"),
    ("big", "size"),
    ("small", "size"),
]
OUT = ("--output", "out.jsonl")
REFUSED, ANY = "refused", "any"

Expected = str | list[str]
"""REFUSED, ANY, or the texts that must be read."""
TEXTS = [text for text, _ in ROWS]
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
STRUCTURES: list[tuple[str, str | bytes, Expected]] = [
    (".csv", GOOD, TEXTS),
    (".csv", GOOD.replace("\n", "\r\n"), TEXTS),
    (".csv", "\ufeff" + GOOD, TEXTS),
    (".csv", GOOD.rstrip("\n"), TEXTS),
    (".csv", "text\n007\n7\n 8\n1e5\n", ["007", "7", " 8", "1e5"]),
    (".csv", "text\ntrue\nNA\nnull\n2024-01-01\n", ANY),
    (".csv", "text\n\"a\nb\"\n\"c,d\"\n", ["a\nb", "c,d"]),
    (".csv", "text\n\"a \"\"b\"\"\"\n", ['a "b"']),
    (".csv", "text,text\na,b\n", REFUSED),
    (".csv", "text,label\na,b,c\nd,e\n", REFUSED),
    (".csv", "text,label\na\n", ANY),
    (".csv", "text,label\n\"a,b\nc,d\n", REFUSED),
    (".csv", "a\n", REFUSED),
    (".csv", "", REFUSED),
    (".csv", "text,label\n", REFUSED),
    (".csv", "text;label\na;b\n", REFUSED),
    (".csv", "text\tlabel\na\tb\n", REFUSED),
    (".csv", "text,label\na\0b,c\n", ANY),
    (".csv", "text,label\n" + "a,b\n" * 6000 + "c\0,d\n", ANY),
    (".csv", "text,label\n\x1b[2Jerror: x,\x1b[31m\n", ANY),
    (".csv", "text,label\n\u202ea,b\n", ANY),
    (".csv", "text,label\n" + "a" * 300_000 + ",b\n", ["a" * 300_000]),
    (".csv", GOOD.encode("utf-16"), REFUSED),
    (".csv", (GOOD + "caf\u00e9,x\n").encode("latin-1"), REFUSED),
    (".csv", "text" + ",x" * 5000 + "\na" + ",1" * 5000 + "\n", ANY),
    (".csv", "Text,label\na,b\n", REFUSED),
    (".csv", " text,label\na,b\n", REFUSED),
    (".csv", "\x1b[2Jx,label\na,b\n", REFUSED),
    (".tsv", GOOD.replace(",", "\t"), TEXTS),
    (".tsv", "text\tlabel\na, b\tc\n", ["a, b"]),
    (".tsv", GOOD, REFUSED),
    (".jsonl", '{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
    (".jsonl", '{"text": "7"}\n', ["7"]),
    (".jsonl", '{"text": 7}\n{"text": 8}\n', ANY),
    (".jsonl", '{"text": "a"}\n{"text": 8}\n', ANY),
    (".jsonl", '{"text": "2024-01-01"}\n{"text": "2024-01-01T00:00:00Z"}\n', ["2024-01-01", "2024-01-01T00:00:00Z"]),
    (".jsonl", '{"text": {"a": 1}}\n', REFUSED),
    (".jsonl", '{"text": ["a"]}\n', REFUSED),
    (".jsonl", '{"text": true}\n', REFUSED),
    (".jsonl", '{"text": null}\n', [""]),
    (".jsonl", '{"text": "a", "text": "b"}\n', ANY),
    (".jsonl", '{"text": "a"}\n\n{"text": "b"}\n', ["a", "b"]),
    (".jsonl", '{"text": "a"}\n[1]\n', REFUSED),
    (".jsonl", '"a"\n', REFUSED),
    (".jsonl", "null\n", REFUSED),
    (".jsonl", "{}\n{}\n", REFUSED),
    (".jsonl", '{"txt": "a"}\n', REFUSED),
    (".jsonl", '{"text": "\\ud800"}\n', ANY),
    (".jsonl", '{"text": "\\u0000"}\n', ANY),
    (".jsonl", '{"text": NaN}\n', REFUSED),
    (".jsonl", "[" * 20_000, REFUSED),
    (".jsonl", '{"text": "a", "b": ' + '{"c": ' * 500 + "1" + "}" * 500 + "}\n", ANY),
    (".jsonl", '{"text": ' + "9" * 400 + "}\n", ANY),
    (".json", '[{"text": "a"}, {"text": "b"}]', ["a", "b"]),
    (".json", '{"text": "a"}', ["a"]),
    (".json", '{"data": [{"text": "a"}]}', ANY),
    (".parquet", GOOD, REFUSED),
    (".parquet", b"PAR1" + bytes(100) + b"PAR1", REFUSED),
    (".parquet", b"PAR1PAR1", REFUSED),
    (".txt", "a\n", REFUSED),
    (".CSV", GOOD, TEXTS),
    (".csv.gz", GOOD, REFUSED),
    (".xlsx", "PK", REFUSED),
    ("", GOOD, REFUSED),
]  # fmt: skip
COLUMNS: list[tuple[str, Callable[[], Any], Expected]] = [
    ("large strings", lambda: _arrow(["a", "b"], "large_string"), ["a", "b"]),
    ("dictionary", lambda: _arrow(["a", "b"], "string").dictionary_encode(), ["a", "b"]),
    ("bytes", lambda: _arrow([b"a", b"b"], "binary"), REFUSED),
    ("whole numbers", lambda: _arrow([1, 2], "int64"), ANY),
    ("nulls", lambda: _arrow([None, None], "string"), ["", ""]),
    ("null type", lambda: _arrow([None, None], "null"), ["", ""]),
    ("one null", lambda: _arrow(["a", None], "string"), ["a", ""]),
    ("dates", lambda: _arrow([1, 2], "date32"), REFUSED),
    ("flags", lambda: _arrow([True, False], "bool_"), REFUSED),
    ("no rows", lambda: _arrow([], "string"), REFUSED),
    ("escape codes", lambda: _arrow(["\x1b[2J", "b"], "string"), ["\x1b[2J", "b"]),
]
PICTURES = ["GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG", "PNG"]


def trials(seed: int, count: int, with_images: bool = True) -> Iterator[Trial]:
    """All structures, then so many damaged files."""
    for number, (ending, content, expected) in enumerate(STRUCTURES):
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        yield from _three(f"data: structure {number} {ending}", f"bad{ending}", _write(f"bad{ending}", raw), expected)
    for name, column, expected in COLUMNS:
        yield from _three(f"data: Parquet of {name}", "bad.parquet", _write_column(column), expected)
    for number in range(count):
        generator = random.Random(f"{seed} {number}")
        ending = generator.choice(["csv", "tsv", "jsonl", "parquet"])
        yield _damaged_table(f"{seed} {number}", f"bad.{ending}")
    if with_images:
        for number in range(count // 2):
            yield _damaged_image(f"{seed} {number}", number)


def _three(name: str, file: str, prepare: Callable[[Path], None], expected: Expected) -> list[Trial]:
    named = ("--file", file)
    refuses = expected == REFUSED
    check = _reads(expected) if isinstance(expected, list) else None
    return [
        Trial(
            f"{name}, predict",
            prepare,
            ("predict", "finished", "--file", file, *OUT),
            named,
            check,
            refuses,
            check is not None,
            ("out.jsonl",),
        ),
        Trial(f"{name}, validate", prepare, ("validate", "good.yaml", f"data.train={file}"), ("data.", file)),
        Trial(f"{name}, eval", prepare, ("eval", "finished", "--data", file), ("--data", file)),
    ]


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        (work / name).write_bytes(content)

    return prepare


def _arrow(values: Sequence[Any], kind: str) -> Any:
    import pyarrow

    return pyarrow.array(values, getattr(pyarrow, kind)())


def _write_column(column: Callable[[], Any]) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        values = column()
        labels = ["animal" if number % 2 else "colour" for number in range(len(values))]
        pyarrow.parquet.write_table(pyarrow.table({"text": values, "label": labels}), work / "bad.parquet")

    return prepare


def _reads(expected: Sequence[str]) -> Callable[[Path, str], str | None]:
    def check(work: Path, out: str) -> str | None:
        found = _texts(work)
        return None if found == list(expected) else f"read {str(found)[:300]} for {str(expected)[:300]}"

    return check


def _texts(work: Path) -> list[Any]:
    return [json.loads(line)["text"] for line in (work / "out.jsonl").read_text("utf-8").split("\n") if line]


def _damaged_table(seed: str, file: str) -> Trial:
    def prepare(work: Path) -> None:
        (work / file).write_bytes(damaged(_table(file), random.Random(seed))[1])

    def check(work: Path, out: str) -> str | None:
        expected = _by_oracle(work / file)
        found = _texts(work)
        return None if expected is None or found == expected else f"read {str(found)[:300]} for {str(expected)[:300]}"

    arguments = ("predict", "finished", "--file", file, *OUT)
    return Trial(f"data: {file} damaged {seed}", prepare, arguments, ("--file", file), check, writes=("out.jsonl",))


def _table(file: str) -> bytes:
    rows = [(f"{text} {number}", label) for number in range(6) for text, label in ROWS]
    if file.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        stream = io.BytesIO()
        texts, labels = zip(*rows)
        pyarrow.parquet.write_table(pyarrow.table({"text": list(texts), "label": list(labels)}), stream)
        return stream.getvalue()
    if file.endswith(".jsonl"):
        return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()
    between = "\t" if file.endswith(".tsv") else ","
    return "".join(f"{text}{between}{label}\n" for text, label in [("text", "label"), *rows]).encode()


def _by_oracle(file: Path) -> list[Any] | None:
    """The texts as Python's own readers have them; None where they cannot tell."""
    try:
        content = file.read_text("utf-8-sig")
        if file.suffix == ".jsonl":
            return [json.loads(line)["text"] for line in content.split("\n") if line.strip()]
        if file.suffix in (".csv", ".tsv"):
            between = "\t" if file.suffix == ".tsv" else ","
            rows = list(csv.reader(io.StringIO(content, newline=""), strict=True, delimiter=between))
            place = rows[0].index("text")
            return [row[place] for row in rows[1:] if row]
    except (ValueError, KeyError, IndexError, TypeError, csv.Error):
        pass
    return None


def _damaged_image(seed: str, number: int) -> Trial:
    if number % 3 == 2:
        return Trial(
            f"data: zip damaged {seed}",
            _damaged_zip(seed),
            ("predict", "seen", "bad.zip", *OUT),
            ("bad.zip",),
            writes=("out.jsonl",),
        )
    if number % 3 == 1:
        break_one = damage_file("images/test/red/00.png", seed)
        return Trial(f"data: class folders damaged {seed}", break_one, ("eval", "seen"), ("00.png", "images/test"))

    def prepare(work: Path) -> None:
        from PIL import Image

        stream = io.BytesIO()
        Image.open(work / "images/test/red/00.png").save(stream, random.Random(seed).choice(PICTURES))
        (work / "bad.png").write_bytes(damaged(stream.getvalue(), random.Random(seed))[1])

    return Trial(f"data: picture damaged {seed}", prepare, ("predict", "seen", "bad.png"), ("bad.png",))


def _damaged_zip(seed: str) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(
            stream, "w", random.Random(seed).choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        ) as archive:
            for image in sorted((work / "images/test").rglob("*.png"))[:4]:
                archive.write(image, image.relative_to(work / "images/test"))
        (work / "bad.zip").write_bytes(damaged(stream.getvalue(), random.Random(seed))[1])

    return prepare
