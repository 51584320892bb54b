"""Broken recipes, drawn from a seed: hostile values in every field, YAML that lies, files that are cut or flipped."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from nlp_ft.recipe import RECIPES

# As YAML text. Which of them a field may hold, its type says; `true` for a number or `1e999` it may not.
VALUES = [
    "true", "False", "null", "~", "''", "' '", "0", "-1", "1", "2", "0.5", "-0.0", "1e999", "-.inf", ".nan", ".inf",
    "1000000000000", "-1000000000000", "1e-320", "9" * 99, "9" * 400, "1e30", "3.0", "'3'", "'1e-4'", "²", "'٣'",
    "[]", "{}", "[true]", "[1, 2]", "[[1]]", "[.nan, .inf]", "{a: 1}", "{a: true, b: .inf}", "{? [1] : 2}", "[a, a]",
    "x", "all", "none", "auto", "3ep", "0st", "-1ep", "1e3st", "10%", "101%", "²ep", "9" * 400 + "ep", "3 epochs",
    "true ep", ".5ep", "0x10", "1_000", "~/x", "$HOME/x", "'~nobody-here/x'", "'${HOME}'", '"a\\0b"', '"\\ud800"',
    '"\\u200b"', '"a\\n\\x1b[2Jerror: b"', '"' + "x" * 5000 + '"', "!!bool maybe", "!!timestamp x", "!!int x",
    "!!float y",
    "!!null z", "!!binary '*'", "!!set {a}", "!!python/name:os.system", "!!map [1]", "!!seq x", "!!str [1]", "*none",
    "&a [*a]", "'(a+)+$'", "'('", "[['(', 1]]", "[[a, true]]", "[['a{99999999999}', 0]]", "[[a, 100000000000]]",
    "{name: x}", "{unknown: 1}", "{every: 0ep}", "{layers: '1-100000000000: 1ep'}", "[" * 60 + "]" * 60,
    "{plateau: {at_least: 2ep, at_most: 1ep}}", "\t", "`", "@x", "%", "a: b", "'", '"', "[", "{", "- 1", "|", "> x",
    "? x",
]  # fmt: skip
FILES: list[str | bytes] = [
    "", " ", "\n", "#", "null", "true", "3", "- a", "[]", "{}", "--- a\n--- b\n", "a\0b", b"\xff\xfe\x00\x01",
    b"\x89PNG\r\n\x1a\n" + bytes(200), b"PK\x03\x04" + bytes(range(256)), "seed: 1\nseed: 2\n", "? [a]\n: 1\n",
    "[" * 3000, "{" * 3000, "- " * 3000, "? " * 3000, "a: " * 3000, "data: &d {train: *d}\n", "a: *b\n",
    "%YAML 9.9\n---\na: 1\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join([f'*{b}'] * 9)}]\n" for b, c in zip("abcdefgh",
    "bcdefghi")),
    "a: &a {b: &b {c: &c {d: *a}}}\n", "a: !!python/object/apply:os.system ['true']\n", "!!set {a, b}\n",
    "\ufeffseed: true\n",
    "seed: 1\r\n\tdata: x\r\n", "data:\n  train: a\n train: b\n", "\u2028: 1\n", '"\\U00110000": 1\n', "<<: {a: 1}\n",
    "=: 1\n",
    "!<x> a: 1\n", "!%ff a: 1\n", "&a : 1\n", "- - - - a\n", "".join(f"k{i}: 1\n" for i in range(300)),
    '"data\\nerror: forged\\e[2J": 1\n', "data: text\nmodel: text\noptimizer: 3\noutput_dir: [1]\n", "1: 2\n",
    "~: 1\n", "true: 1\n",
]  # fmt: skip
OVERRIDES = [
    "", "=", "a", "=1", "a.=1", ".a=1", "a..b=1", "seed", "seed =1", "seed=[", "seed=true", "seed=1=2", "data=x",
    "data.train.x=1",
    "seed.x=1", "optimizer=1", "strategy=", "strategy=nope", "strategy.unfreeze.every.x=1", "a." * 60 + "b=1",
    "\ud800=1",
    "seed=\ud800", "x\ny=1", "seed=\x1b[2J", "seed=!!bool maybe", "seed=&a [*a]", "seed=" + "9" * 5000,
    "seed=" + "[" * 3000,
    "task=x", "task=[1]", "task=", "output_dir=", "output_dir=' '", "output_dir=$HOME/x",
    "output_dir='~nobody-here/x'", "model=",
    "-x=1", "optimizer.lr.lr=1", "trackers=wandb", "trackers=[x]", "data.label_names=[a]", "data.label_names=[a, a]",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A recipe file with overrides, and what a message about it must name."""

    name: str
    content: str | bytes | None = None
    """Of the file; None for the good recipe."""
    overrides: tuple[str, ...] = ()
    field: str = ""
    """Which the last override sets, dotted; a message names it, or one of its sections."""
    value: str | None = None
    """As YAML, what that field then holds, where the recipe is taken."""


def fields(task: str) -> Iterator[str]:
    """Every field of a recipe of that task, dotted, sections too."""

    def inside(model: type[BaseModel], before: str) -> Iterator[str]:
        for name, info in model.model_fields.items():
            yield f"{before}{name}"
            for section in _sections(info.annotation):
                yield from inside(section, f"{before}{name}.")

    yield from inside(RECIPES[task], "")


def cases(seed: int, good: str) -> list[Case]:
    """All cases, each once, in an order drawn from the seed.

    Args:
        seed: of the order, and of what is cut and flipped.
        good: text of a recipe that is right.
    """
    generator = random.Random(seed)
    found = [
        Case(f"{task}: {name}={value[:40]}", None, (*_fitting(task, name), f"{name}={value}"), name, value)
        for task in RECIPES
        for name in fields(task)
        for value in VALUES
        if name != "task"
    ]
    found += [Case(f"file {number}", content) for number, content in enumerate(FILES)]
    found += [Case(f"override {number}", None, (text,)) for number, text in enumerate(OVERRIDES)]
    found += [Case(f"damaged {number}", _damaged(good, generator)) for number in range(400)]
    generator.shuffle(found)
    return list({(case.content, case.overrides): case for case in found}.values())


def _fitting(task: str, name: str) -> list[str]:
    """Overrides of the good recipe with which the field has its place."""
    found = [f"task={task}"]
    if task == "image_classification":
        found += [
            "data={train: a, validation: b}",
            "model={name: resnet18, weights: null}",
        ]
    if task in ("token_classification", "question_answering", "multiple_choice"):
        found += ["model.pooling=auto"]
    if name.startswith("strategy.unfreeze"):
        found += ["strategy=gradual"]
    if name.startswith("strategy.unfreeze.loss_below."):
        found += ["strategy.unfreeze.loss_below.value=1"]
    return found


def _damaged(good: str, generator: random.Random) -> bytes:
    content = bytearray(good.encode())
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(content))
        match generator.randrange(4):
            case 0:
                del content[max(place, 1) :]
            case 1:
                content[place] ^= 1 << generator.randrange(8)
            case 2:
                content[place:place] = generator.choice(
                    [b"\0", b"\x1b[2J", b"\xff", b"\t", b": ", b"\n", b"- ", b"&a *a", b"'"]
                )
            case _:
                content[place:place] = content[place : place + 30]
    return bytes(content)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]
