"""Print the lowest versions that pyproject.toml admits, as constraints for pip: `torch>=2.7` gives `torch==2.7`."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(requirements: list[str]) -> list[str]:
    """`name==version` of each requirement that has a lower bound."""
    found = (re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][^,;\s]*)", text) for text in requirements)
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    print("\n".join(dict.fromkeys(lowest([*project["dependencies"], *extras]))))
