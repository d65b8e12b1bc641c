"""What the experiments share: their flags, a folder for the files of a run, config.json, CSV files, tables, panels."""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import minilstm
from minilstm import LSTM, RNN, LSTMCell, MultiRNNCell, files

OWN_FILES = (  # by their full names: --out may be a folder in which a person has other tables and pictures
    "config.json", "results.json", "results.csv", "history.csv", "forecast.csv", "notebook.csv", "validation.csv",
    "loss.png", "forecast.png", "surprise.png", "curvature.png", "curves.png", "gates.png", "forget_bias.png",
    "sweep.png", "samples.txt", "checkpoint", "model.ckpt-*.index", "model.ckpt-*.data-*",
)  # fmt: skip
PACKAGES = ("numpy", "autograd", "tqdm", "matplotlib")  # whose versions config.json notes


# --- flags ----------------------------------------------------------------------------------------------------


def program(module: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """The parser of ``python -m module``; its help shows the defaults. The options go to ArgumentParser."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=formatter, **options
    )


def add_output_flags(flags: argparse.ArgumentParser) -> None:
    """Add --out, by default a folder in runs/ that is named after the module, and --quiet."""
    folder = Path("runs") / flags.prog.rpartition(".")[2]
    flags.add_argument("--out", type=home, default=folder, help="folder for all files")
    flags.add_argument("--quiet", action="store_true", help="no progress bar, no table")


def parser(module: str, description: str, **defaults: Any) -> argparse.ArgumentParser:
    """The flags of an experiment that trains a model, with this experiment's defaults."""
    flags = program(module, description)
    add_output_flags(flags)
    flags.add_argument("--seed", type=natural, default=0, help="seed of weights, batches and noise")
    flags.add_argument("--epochs", type=positive, default=defaults["epochs"], help="passes over the data")
    flags.add_argument("--units", type=positive, default=defaults["units"], help="units of each LSTM cell")
    flags.add_argument("--layers", type=positive, default=defaults.get("layers", 1), help="LSTM cells in a stack")
    flags.add_argument("--learning-rate", type=rate, default=defaults["learning_rate"], help="of Adam, at the start")
    flags.add_argument("--resume", action="store_true", help="continue the run in --out instead of starting again")
    return flags


def home(text: str) -> Path:
    """A path whose ``~`` is the home folder, for argparse: a shell leaves that of ``--out=~/runs`` as it is."""
    return Path(text).expanduser()


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def natural(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def rate(text: str) -> float:
    """A finite number of at least 0, for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {value}")
    return value


def parse(flags: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags in `argv` (None: those of this process), and as ``command`` the line that a person would type."""
    args = flags.parse_args(argv)
    if args.out.exists() and not args.out.is_dir():
        flags.error(f"--out {args.out} is a file, wanted a folder")
    args.command = shlex.join([*flags.prog.split(), *(sys.argv[1:] if argv is None else argv)])
    return args


# --- the model ------------------------------------------------------------------------------------------------


def lstm(units: int, layers: int = 1, *, return_sequences: bool = True, **cell_options: Any) -> RNN:
    """One LSTM, or `layers` cells one above the other, named as TensorFlow's MultiRNNCell names them."""
    if layers == 1:
        return LSTM(units, return_sequences=return_sequences, **cell_options)
    cells = [LSTMCell(units, **cell_options) for _ in range(layers)]
    return RNN(MultiRNNCell(cells), return_sequences=return_sequences)


# --- files ----------------------------------------------------------------------------------------------------


def begin(args: argparse.Namespace) -> None:
    """Prepare the folder of a run and write its config.json; `args` are its flags as `parse` returned them."""
    prepare(args.out, getattr(args, "resume", False))
    write_config(args.out, vars(args))


def prepare(out: Path, resume: bool, experiment: Path | None = None) -> None:
    """Make the folder. Unless the run is resumed, remove the files that an earlier experiment left there.

    Ends the program if there are such files, but no config.json, which every experiment writes first: they may be those
    of a run of `minilstm.fit`. It is in the folder of the `experiment`, by default `out` itself.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        found = [path for pattern in OWN_FILES for path in out.glob(pattern)]
        if found and not ((experiment or out) / "config.json").exists():
            raise SystemExit(f"--out {out}: holds {found[0].name}, but no config.json of an experiment, so it was not "
                             "changed; name another folder")  # fmt: skip
        for path in found:
            path.unlink()


def write_config(out: Path, settings: dict[str, Any]) -> None:
    """Write config.json: the settings (flags as `parse` returned them), the date, versions and the number of cores."""
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    command = settings.pop("command")
    config = {
        "settings": settings,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "versions": {
            "minilstm": minilstm.__version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in PACKAGES},
        },
        "cores": os.cpu_count(),
    }
    write_json(out / "config.json", config)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    files.write_text(str(path), json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically; floats have all their digits."""
    files.write_text(str(path), csv_text([header, *rows]))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def finish(args: argparse.Namespace, results: dict[str, Any], text: str, report: Callable[[str], None]) -> None:
    """Write results.json. Unless --quiet was given, report `text` and then the names of all files in --out."""
    write_json(args.out / "results.json", results)
    if not args.quiet:
        report(text)
        for path in sorted(args.out.iterdir()):
            report(f"  {path}")


# --- tables and pictures --------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it also reads as text: the first column left, the others right."""
    widths = [max(len(str(row[k])) for row in [header, *rows]) for k in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    rule = "|" + "|".join("-" * (w + 2) if k == 0 else "-" * (w + 1) + ":" for k, w in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def panels(count: int, width: float, height: float) -> Any:
    """`count` axes of matplotlib in a row, with one vertical scale, on a figure of `width` by `height` inches."""
    from matplotlib.figure import Figure  # slow to load, and only needed here

    axes = Figure(figsize=(width, height), layout="constrained").subplots(1, count, sharey=True, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, alpha=0.25, linewidth=0.6)
    return axes
