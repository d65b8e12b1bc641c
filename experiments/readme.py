"""Write the computed parts of the README: ``python -m experiments.readme`` computes all of them again.

It runs the ten-line script of the README, and the sunspots experiment with its defaults. Their pictures go to
``docs/images``, and the table goes between its two markers. The part on speed comes from ``docs/measured``, which holds
the files of ``python -m experiments.benchmark``; ``python -m experiments.readme speed`` writes this part alone.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import common, sunspots
from .benchmark.__main__ import SHAPES
from .benchmark.tables import COMPILED, OURS, TABLES_FILE, Results, cells, geometric_mean
from .benchmark.work import TOY

ROOT = Path(__file__).parent.parent
IMAGES, MEASURED = ROOT / "docs" / "images", ROOT / "docs" / "measured"
PARTS = ("sunspots", "speed")


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
    """One sentence that compares the LSTM with AR(12), from the results of `experiments.sunspots`."""
    linear = results["arv"]["ar12"]

    def compared(found: dict[str, float]) -> str:
        changes = {span: found[span] / linear[span] - 1 for span in sunspots.SPANS}
        said = [f"{100 * abs(x):.0f} % {'lower' if x < 0 else 'higher'} on {span}" for span, x in changes.items()]
        return f"{', '.join(said[:-1])} and {said[-1]}"

    ensemble, median = compared(results["arv"]["ensemble"]), compared(results["lstm_median"])
    return f"Compared with AR(12), the error of the ensemble is {ensemble}. The error of the median seed is {median}."


def speed(folder: Path) -> str:
    """The times of a toy program and of a training step as Markdown, from the benchmark's files in `folder`."""
    results = Results.read(folder)
    rows = []
    for peer in results.present:
        toy = (peer, "toy", TOY)
        if toy in results.time.values:
            over_ours = results.time.ratio(toy, (OURS, "toy", TOY))
            rows.append((peer, *cells(results.time(*toy) / 1e3, over_ours, results.memory(*toy))))
    table = common.table(("from the start of the process to saved weights", "seconds", "over minilstm's", "MiB"), rows)
    batches, single = ([shape for shape in SHAPES if (shape[1] == 1) == one] for one in (False, True))
    headline = (folder / TABLES_FILE).read_text().split("\n", 1)[0]
    return (
        f"{table}\n\nA ratio is the median over rounds of two times of the same round, not the quotient of the two "
        f"medians.\n\nThe time of one training step, divided by the time in the fastest other library (below 1, "
        f"minilstm is faster): at {len(batches)} sizes from 32 to 650 units {_steps(results, OURS, batches)} in pure "
        f"NumPy and {_steps(results, COMPILED, batches)} with the extra `fast`; for a single sequence and 16 units "
        f"{_steps(results, OURS, single)} and {_steps(results, COMPILED, single)}. Printed by "
        f"`python -m experiments.benchmark --rounds {results.rounds}`: {headline}."
    )


def _steps(results: Results, peer: str, shapes: Sequence[tuple[int, ...]]) -> str:
    """The lowest and highest ratio of a peer's training step to the fastest peer's, and the mean ratio."""
    ratios = results.over_fastest(peer, "step", shapes)
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{min(ratios):.2f} to {max(ratios):.2f} (geometric mean {geometric_mean(ratios):.2f})"


def computed(text: str) -> str:
    """The table of the sunspots and the verdict; also draws the pictures of the README, whose text is `text`."""
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
    printed = f"Printed by `python -m experiments.sunspots` on {datetime.date.today().isoformat()}."
    return f"{sunspots.results_table(results)}\n\n{verdict(results)} {printed}"


def main(argv: Sequence[str] | None = None) -> None:
    """Bring README.md and its pictures up to date."""
    flags = common.program("experiments.readme", "Write the computed parts of the README again.")
    flags.add_argument("parts", nargs="*", default=list(PARTS), help="the parts to write")
    args = flags.parse_args(argv)
    if not set(args.parts) <= set(PARTS):
        flags.error(f"parts must be of {PARTS}, got {args.parts}")
    readme = ROOT / "README.md"
    text = readme.read_text()
    for part in args.parts:
        content = speed(MEASURED) if part == "speed" else computed(text)
        text = replace_block(text, part, content)
        print(content)
    readme.write_text(text)


if __name__ == "__main__":
    main()
