"""Everything in the README that was computed: ``python -m experiments.readme`` computes it again and puts it there.

The ten-line script is run as it stands there, the sunspots experiment with its defaults; their pictures go to
``docs/images`` and the table between its two markers.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from . import sunspots

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"


def code_blocks(text: str) -> list[str]:
    """The Python code blocks of a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def replace_block(text: str, name: str, content: str) -> str:
    """`text` with `content` between the markers ``begin: name`` and ``end: name``."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{content}\n{end}{tail}"


def verdict(results: dict[str, Any]) -> str:
    """How the LSTM compares with AR(12), in one sentence, from what `experiments.sunspots` returns."""
    linear = results["arv"]["ar12"]

    def compared(found: dict[str, float]) -> str:
        changes = {span: found[span] / linear[span] - 1 for span in sunspots.SPANS}
        said = [f"{100 * abs(x):.0f} % {'lower' if x < 0 else 'higher'} on {span}" for span, x in changes.items()]
        return f"{', '.join(said[:-1])} and {said[-1]}"

    ensemble, median = compared(results["arv"]["ensemble"]), compared(results["lstm_median"])
    return f"Beside AR(12), the error of the ensemble is {ensemble}; that of the median seed is {median}."


def main() -> None:
    """Bring README.md and its pictures up to date."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    IMAGES.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(compile(code_blocks(text)[0], "README.md", "exec"), {})
            shutil.copyfile("forecast.png", IMAGES / "ten_lines.png")
            results = sunspots.main(["--out", "sunspots", "--quiet"])
            shutil.copyfile(Path("sunspots") / "forecast.png", IMAGES / "sunspots.png")
        finally:
            os.chdir(here)
    date = datetime.date.today().isoformat()
    printed = f"Printed by `python -m experiments.sunspots` on {date}."
    table = f"{sunspots.results_table(results)}\n\n{verdict(results)} {printed}"
    readme.write_text(replace_block(text, "sunspots", table))
    print(table)


if __name__ == "__main__":
    main()
