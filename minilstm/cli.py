"""The console script: inspect a checkpoint, convert it, check gradients, replay a failed step."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import __version__, cells, checkpoint, gradcheck, tensorbundle
from .export import convert
from .export.format import checked_params
from .layers import RNN, Dense, Sequential
from .reading import from_json, printable
from .training import replay


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default ``sys.argv``); returns the exit code.

    0 is success, 1 a negative answer (damage, gradients that disagree), 2 a command that could not be carried out, 130
    one that was interrupted. What is wrong is said in one message, without a traceback.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            said: set[str] = set()
            warnings.showwarning = lambda message, *_, **__: _say(options, str(message), said)
            return int(options.run(options))
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        return _failed(options, "interrupted", 130)
    except (ValueError, OSError) as error:
        return _failed(options, str(error))
    except MemoryError as error:
        return _failed(options, f"there is not enough memory{error and f': {error}'}")
    except Exception as error:
        return _failed(options, f"{type(error).__name__}: {error} (this is a fault of minilstm; please report it)")


def _say(options: argparse.Namespace, message: str, said: set[str]) -> None:
    """Print a message, unless it was said before."""
    if message not in said:
        print(printable(f"minilstm {options.command}: {message}"), file=sys.stderr)
    said.add(message)


def _failed(options: argparse.Namespace, message: str, code: int = 2) -> int:
    _say(options, message, set())
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minilstm", description="LSTMs from scratch, in TensorFlow's layout.")
    parser.add_argument("--version", action="version", version=f"minilstm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="list and verify the tensors of a TensorFlow checkpoint")
    inspect.add_argument("path", help="a prefix such as runs/demo/model.ckpt-600, or a directory (its newest)")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(run=_inspect)

    convert.add_parser(commands)

    again = commands.add_parser("replay", help="run the step again at which fit met a number that is not finite")
    again.add_argument("path", help="the failed-<step> that fit's error names")
    again.set_defaults(run=_replay)

    check = commands.add_parser("gradcheck", help="compare hand-derived, traced and numerical gradients")
    check.add_argument("path", nargs="?", help="a checkpoint with a model in it; without it, a new cell is checked")
    check.add_argument("--cell", choices=["LSTMCell", "BasicLSTMCell"], default="LSTMCell")
    check.add_argument("--units", type=int, default=5)
    check.add_argument("--input-dim", type=int, default=3)
    check.add_argument("--time", type=int, default=7, help="time steps of the random input")
    check.add_argument("--batch", type=int, default=3)
    check.add_argument("--seed", type=int, default=0)
    for flag, kind in (("forget-bias", float), ("cell-clip", float), ("num-proj", int), ("proj-clip", float)):
        check.add_argument(f"--{flag}", type=kind)
    check.add_argument("--activation", choices=sorted(cells.ACTIVATIONS))
    check.add_argument("--use-peepholes", action="store_true", default=None)
    check.set_defaults(run=_gradcheck)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    prefix = checkpoint.prefix_of(options.path)
    bundle = tensorbundle.open(prefix)
    notes: list[str] = []
    tensors = [_facts(bundle, name, notes) for name in bundle]
    sound = [tensor["name"] for tensor in tensors if tensor["verdict"] == "ok"]
    is_whole = len(sound) + len(bundle.unreadable) == len(tensors)
    step, model = None, None
    try:
        step = checkpoint.as_step(bundle["global_step"]) if "global_step" in sound else None
        model = from_json(bundle[checkpoint.MODEL].item()) if checkpoint.MODEL in sound else None
    except (ValueError, TypeError) as error:
        notes.append(f"not as minilstm writes it: {error}")
    if options.json:
        found = {"prefix": prefix, "format": bundle.format, "ok": is_whole, "step": step, "model": model}
        found |= {"tensors": tensors, "notes": notes}
        print(json.dumps(found, indent=2))
        return 0 if is_whole else 1
    names = [printable(tensor["name"]) for tensor in tensors]
    width = max(map(len, names), default=0)
    kind = ", TensorFlow's first format (V1)" if bundle.format == "V1" else ""
    print(printable(f"{prefix}: step {'unknown' if step is None else step}{kind}"))
    for name, tensor in zip(names, tensors, strict=True):
        size = "?" if tensor["bytes"] is None else f"{tensor['bytes']:,}"
        facts = f"{tensor['dtype']:<8} {tensor['shape']!s:<14} {size:>10} bytes  {tensor['verdict']}"
        print(f"  {name:<{width}}  {printable(facts)}")
    layers = model.get("layers") if isinstance(model, dict) else None
    for layer in layers if isinstance(layers, list) else []:
        print(f"  model: {json.dumps(layer)}")
    for note in notes:
        print(printable(note))
    lost = f"; {len(bundle.unreadable)} of {len(bundle)} tensors cannot be read" if bundle.unreadable else ""
    print(f"all checksums are right{lost}" if is_whole else "DAMAGED")
    return 0 if is_whole else 1


def _facts(bundle: tensorbundle.Bundle, name: str, notes: list[str]) -> dict[str, Any]:
    """What there is to say of a tensor, with the verdict on its checksum; a file that is missing is a note, once."""
    info, verdict = bundle.info(name), "ok"
    try:
        bundle.verify(name)
    except tensorbundle.CheckpointError as error:
        verdict = str(error)
        if isinstance(error.__cause__, FileNotFoundError):
            verdict = "its file is not there"
            path = error.__cause__.filename
            notes += [f"{path}: not there"] * (f"{path}: not there" not in notes)
    shape = list(info.shape)
    return {"name": name, "dtype": info.dtype_name, "shape": shape, "bytes": info.nbytes, "verdict": verdict}


def _replay(options: argparse.Namespace) -> int:
    with np.errstate(all="ignore"):
        print(printable(replay.replay(options.path)))
    return 0


def _gradcheck(options: argparse.Namespace) -> int:
    params = None
    input_dim: int | None = options.input_dim
    if options.path is not None:
        loaded = checkpoint.load_checkpoint(options.path)
        if loaded.model is None:
            raise ValueError(f"{loaded.prefix}: no model description; check a cell with --cell instead")
        model, params, input_dim = loaded.model, checked_params(loaded.model, loaded.params, loaded.prefix), None
    else:
        names = ("forget_bias", "cell_clip", "num_proj", "proj_clip", "activation", "use_peepholes")
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        try:
            cell = getattr(cells, options.cell)(options.units, **given)
        except TypeError as error:
            raise ValueError(f"{options.cell}: {error}") from None
        model = Sequential(RNN(cell), Dense(1))
    table = gradcheck.report(
        model, params, input_dim=input_dim, batch=options.batch, time=options.time, seed=options.seed
    )
    print(printable(str(table)))
    return 0 if table.agrees else 1
