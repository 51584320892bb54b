"""Opens a page in a headless browser, at a width of a screen or of a phone, and measures what a person would see."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MEASURE = """
<!DOCTYPE html><html><body style="margin:0">
<iframe id="page" src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script id="found" type="application/json"></script><script>
document.getElementById("page").onload = () => {{
  const view = document.getElementById("page").contentWindow, page = view.document, width = view.innerWidth;
  for (const one of page.querySelectorAll("details")) one.open = true;
  const name = one => one.tagName + " " + (one.textContent || "").trim().slice(0, 40);
  const scrolls = one => one.closest(".scroll") !== null;
  const wide = [...page.querySelectorAll("body *")].filter(one => !scrolls(one) && !one.closest("svg") &&
    !one.classList.contains("skip") && one.getBoundingClientRect().right > width + 0.5).map(name);
  const cut = [...page.querySelectorAll("svg text")].filter(one => {{
    const box = one.getBoundingClientRect(), around = one.closest("svg").getBoundingClientRect();
    return box.left < around.left - 1 || box.right > around.right + 1 || box.top < around.top - 1 ||
      box.bottom > around.bottom + 1;
  }}).map(name);
  document.getElementById("found").textContent = JSON.stringify({{
    width, scrollWidth: page.documentElement.scrollWidth, wide, cut,
    headings: page.querySelectorAll("h1").length, svgs: page.querySelectorAll("svg").length,
    scripts: page.scripts.length, unnamed: page.querySelectorAll("svg:not([aria-label])").length,
    color: view.getComputedStyle(page.body).backgroundColor,
  }});
}};
</script></body></html>
"""


def browser() -> str | None:
    """The program of a browser that can run without a screen; None if there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def measure(program: str, page: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """Open a page at a width in CSS pixels; return what was measured, and `console`, its messages."""
    wrapper = page.with_name(f"{page.stem}-{width}.wrapper.html")
    wrapper.write_text(MEASURE.format(page=page.name, width=width), encoding="utf-8")
    given = ["--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom"]
    result = _run(program, [*given, wrapper.as_uri()], max(width, 600), dark)
    match = re.search(r'<script id="found"[^>]*>(.*?)</script>', result.stdout, re.DOTALL)
    assert match, result.stderr[-2000:]
    found: dict[str, Any] = json.loads(match[1])
    return {**found, "console": [line for line in result.stderr.splitlines() if "CONSOLE" in line]}


def screenshot(program: str, page: Path, file: Path, width: int, height: int, *, dark: bool = False) -> None:
    """Write a picture of the upper part of a page; below 600 pixels the page stands in a frame of that width."""
    wrapper = page.with_name(f"{page.stem}-{width}.frame.html")
    frame = f'<iframe src="{page.name}" style="border:0;width:{width}px;height:{height}px"></iframe>'
    wrapper.write_text(f'<body style="margin:0">{frame}', encoding="utf-8")
    _run(program, [f"--screenshot={file}", "--hide-scrollbars", wrapper.as_uri()], max(width, 600), dark, height)


def _run(
    program: str, given: list[str], width: int, dark: bool, height: int = 900
) -> "subprocess.CompletedProcess[str]":
    settings = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--disable-extensions"]
    dark_mode = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    command = [program, *settings, *dark_mode, f"--window-size={width},{height}", *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)
