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
    median, linear = results["lstm_median"], results["arv"]["ar12"]
    better = [span for span in sunspots.SPANS if median[span] < linear[span]]
    worse = [span for span in sunspots.SPANS if span not in better]
    verdict = f"The median LSTM is better than AR(12) on {' and '.join(better) or 'no span'}"
    verdict += f", and worse on {' and '.join(worse)}." if worse else "."
    table = f"{sunspots.results_table(results)}\n\n{verdict} Printed by `python -m experiments.sunspots` on {date}."
    readme.write_text(replace_block(text, "sunspots", table))
    print(table)


if __name__ == "__main__":
    main()
