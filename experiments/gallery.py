"""Write the tables of docs/experiments.md from the results of finished runs.

    python -m experiments.gallery --runs runs

A run is a folder with the config.json and results.json of an experiment in `HEADLINES`. Other folders and unfinished
runs are left out, and their names are printed.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import common
from .readme import replace_block
from .sunspots import SPANS
from .tasks_memory import gate_in_words

PAGE = Path(__file__).parent.parent / "docs" / "experiments.md"


class Headline(NamedTuple):
    """A number that an experiment is about, and the number to compare it with."""

    what: str
    ours: float
    baseline: float
    baseline_name: str


class Run(NamedTuple):
    """A finished run."""

    experiment: str  # without the package, such as sunspots
    headlines: list[Headline]
    command: str
    date: str


def notebook(results: Mapping[str, Any]) -> list[Headline]:
    """The largest difference from the print of each document, beside the difference that rounding allows."""
    return [
        Headline(f"largest difference from {source}", value, results["tolerance"][source], "allowed by rounding")
        for source, value in results["largest_difference"].items()
    ]


def sunspots(results: Mapping[str, Any]) -> list[Headline]:
    """The average relative variance on each test span, of the median seed and of the ensemble."""
    linear = results["arv"]["ar12"]
    forecasts = {"LSTM, median of seeds": results["lstm_median"], "ensemble": results["arv"]["ensemble"]}
    return [
        Headline(f"relative variance {span}, {name}", score[span], linear[span], "AR(12)")
        for name, score in forecasts.items()
        for span in SPANS
    ]


def median_of(seeds: int) -> str:
    """What a score over `seeds` seeds is, in words."""
    return "one seed" if seeds == 1 else f"median of {seeds}"


def memory_task(label: str, number: str, baseline: str, results: Mapping[str, Any]) -> list[Headline]:
    """The score `number` of a memory task, for each setting in its results."""
    found = []
    for one in results["settings"]:
        gate = gate_in_words(one["forget_bias"])
        what = f"{label}, {median_of(len(one['by_seed']))}, length {one['length']}, {gate}"
        found.append(Headline(what, one["scores"][number], one["scores"][baseline], "no memory"))
    return found


def char_lm(results: Mapping[str, Any]) -> list[Headline]:
    """Bits per held-out character, beside the best n-gram."""
    bits = dict(results["bits_per_character"])
    ours = bits.pop("lstm")
    best = min(bits, key=lambda name: bits[name])
    return [Headline("bits per held-out character", ours, bits[best], best)]


def adding_torch(results: Mapping[str, Any]) -> list[Headline]:
    """Scores and wall time beside PyTorch's."""
    label = median_of(len(results["runs"]))
    return [
        Headline(f"test MSE, {label}", results["test_mse"], results["torch_test_mse"], "PyTorch"),
        Headline("wall time, s", results["seconds"], results["torch_seconds"], "PyTorch"),
    ]


def char_lm_torch(results: Mapping[str, Any]) -> list[Headline]:
    """Bits per held-out character and wall time beside PyTorch's."""
    return [
        Headline(what, results[key]["minilstm"], results[key]["torch"], "PyTorch")
        for what, key in (("bits per held-out character", "bits_per_character"), ("wall time, s", "seconds"))
    ]


HEADLINES: dict[str, Callable[[Mapping[str, Any]], list[Headline]]] = {
    "notebook": notebook,
    "sunspots": sunspots,
    "adding": functools.partial(memory_task, "test MSE", "test_mse", "baseline_mse"),
    "adding_torch": adding_torch,
    "copying": functools.partial(memory_task, "test cross-entropy", "test_cross_entropy", "memoryless"),
    "char_lm": char_lm,
    "char_lm_torch": char_lm_torch,
}


def read_run(folder: Path) -> Run | None:
    """The run in a folder, or None if there is no finished run of a known experiment.

    Raises ValueError if results.json is not the experiment's.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        results = json.loads((folder / "results.json").read_text())
    except FileNotFoundError:
        return None
    words = shlex.split(config["command"])
    experiment = words[2].rpartition(".")[2] if words[:2] == ["python", "-m"] and len(words) > 2 else ""
    if experiment not in HEADLINES:
        return None
    try:
        headlines = HEADLINES[experiment](results)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'results.json'}: not the results of {experiment}: no {error}") from error
    return Run(experiment, headlines, shlex.join(without_own_flags(words)), config["date"])


def without_own_flags(words: Sequence[str]) -> list[str]:
    """A command without --out FOLDER, --quiet and --resume, which do not change its numbers."""
    kept, left = [], iter(words)
    for word in left:
        if word == "--out":
            next(left, None)
        elif word not in ("--quiet", "--resume") and not word.startswith("--out="):
            kept.append(word)
    return kept


def tables(runs: Sequence[Run]) -> str:
    """Two tables: the numbers of all runs, and the command and date of each run."""
    ordered = sorted(runs, key=lambda run: (list(HEADLINES).index(run.experiment), run.command))
    numbers = [
        (run.experiment, one.what, f"{one.ours:.3g}", f"{one.baseline:.3g}", one.baseline_name)
        for run in ordered
        for one in run.headlines
    ]
    commands = [(run.experiment, f"`{run.command}`", run.date) for run in ordered]
    first = common.table(("experiment", "number, lower is better", "minilstm", "baseline", "baseline's name"), numbers)
    return f"{first}\n\n{common.table(('experiment', 'command', 'date'), commands)}"


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> str:
    """Bring the page up to date; returns the tables."""
    flags = common.program("experiments.gallery", "Write the numbers of finished runs into docs/experiments.md.")
    flags.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs' folders")
    flags.add_argument("--page", type=Path, default=PAGE, help="page with the markers")
    args = flags.parse_args(argv)
    runs = []
    for folder in sorted(path for path in args.runs.iterdir() if path.is_dir()):
        run = read_run(folder)
        if run is None:
            report(f"left out: {folder}, which holds no finished run of {', '.join(HEADLINES)}")
        else:
            runs.append(run)
    if not runs:
        raise SystemExit(f"experiments.gallery: no finished run in {args.runs}; the page stays as it is")
    text = tables(runs)
    common.files.write_text(str(args.page), replace_block(args.page.read_text(), "gallery", text))
    report(text)
    return text


if __name__ == "__main__":
    main()
