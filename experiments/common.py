"""What every experiment does alike: flags, a folder for its files, a description of the run, tables."""

from __future__ import annotations

import argparse
import datetime
import glob
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import minilstm
from minilstm import LSTM, RNN, LSTMCell, MultiRNNCell, files

OWN_FILES = (
    "config.json", "results.json", "*.csv", "*.png", "samples.txt", "checkpoint", "model.ckpt-*.index",
    "model.ckpt-*.data-*",
)  # fmt: skip


def parser(module: str, description: str, **defaults: Any) -> argparse.ArgumentParser:
    """The flags that all experiments share, with this experiment's defaults."""
    flags = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    folder = Path("runs") / module.rpartition(".")[2]
    flags.add_argument("--out", type=Path, default=folder, help="folder for all files")
    flags.add_argument("--seed", type=int, default=0, help="seed of weights, batches and noise")
    flags.add_argument("--epochs", type=positive, default=defaults["epochs"], help="passes over the data")
    flags.add_argument("--units", type=positive, default=defaults["units"], help="units of each LSTM cell")
    flags.add_argument("--layers", type=positive, default=defaults.get("layers", 1), help="LSTM cells on each other")
    flags.add_argument("--learning-rate", type=float, default=defaults["learning_rate"], help="Adam's, at the start")
    flags.add_argument("--resume", action="store_true", help="go on with the run in --out instead of starting afresh")
    flags.add_argument("--quiet", action="store_true", help="no progress bar, no table")
    return flags


def lstm(units: int, layers: int = 1, *, return_sequences: bool = True, **cell_options: Any) -> RNN:
    """A plain LSTM, or `layers` cells one above the other under TensorFlow's names for MultiRNNCell."""
    if layers == 1:
        return LSTM(units, return_sequences=return_sequences, **cell_options)
    cells = [LSTMCell(units, **cell_options) for _ in range(layers)]
    return RNN(MultiRNNCell(cells), return_sequences=return_sequences)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def prepare(out: Path, resume: bool) -> None:
    """Make the folder; unless the run is resumed, remove the files that an experiment left there before."""
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        for pattern in OWN_FILES:
            for name in glob.glob(os.path.join(glob.escape(str(out)), pattern)):
                os.remove(name)


def parse(flags: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of `argv`, None meaning those of the process, and as ``command`` what a person would type for them."""
    args = flags.parse_args(argv)
    args.command = shlex.join([*flags.prog.split(), *(sys.argv[1:] if argv is None else argv)])
    return args


def write_config(out: Path, settings: dict[str, Any]) -> None:
    """config.json: the settings, which are the flags as `parse` gave them, versions and the machine's core count."""
    settings = dict(settings)
    command = settings.pop("command")
    packages = ("numpy", "autograd", "tqdm", "matplotlib")
    config = {
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        "command": command,
        "date": datetime.date.today().isoformat(),
        "versions": {
            "minilstm": minilstm.__version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "cores": os.cpu_count(),
    }
    write_json(out / "config.json", config)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    files.write_text(str(path), json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically; floats with all their digits."""
    lines = [",".join(header), *(",".join(str(value) for value in row) for row in rows)]
    files.write_text(str(path), "\n".join(lines) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned so that it reads as text too: the first column left, the others right."""
    widths = [max(len(str(row[k])) for row in [header, *rows]) for k in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    rule = "|" + "|".join("-" * (w + 2) if k == 0 else "-" * (w + 1) + ":" for k, w in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])
