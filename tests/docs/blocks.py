"""The code blocks of README and docs/.

A block is run in full. A comment in the line above its fence, `<!-- check: KIND; REASON -->`, asks for a weaker check:
`parse` (the commands are parsed by their own parsers), `validate` (the recipe is read and validated) or `output` (a
command and what it prints).
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(
    r"(?:^<!-- check: (?P<check>\w+)(?:; (?P<reason>.+?))? -->\n)?"
    r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LONG = {"CONTRIBUTING.md": "its commands take minutes to an hour"}
"""Pages whose commands are only parsed, and why."""


@dataclass(frozen=True)
class Block:
    """A code block: the page, the line of its fence, its language, how it is checked, and what it holds."""

    page: str
    line: int
    language: str
    check: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    default = "parse" if name in LONG else "run"
    return [
        Block(
            name,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["check"] or default,
            found["code"],
        )
        for found in FENCE.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks_of(page)]


def of_language(*languages: str) -> list[Block]:
    """The blocks in one of these languages."""
    return [block for block in ALL if block.language in languages]
