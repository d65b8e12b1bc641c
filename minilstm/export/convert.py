"""``minilstm convert SRC DST``: a model from one library's file to another's, checked by running it there.

The names tell both formats: a checkpoint is named by its prefix or directory, the others have a suffix. What no file of
weights tells (forget bias, activations, clips) comes from the description that minilstm writes into all of its files,
or from flags. What is taken as it usually is, such as the order of the layers, is said.

`FORMATS` is the table of the other libraries' formats. TensorFlow 1.x has no module there: its checkpoints are those of
`minilstm.checkpoint`, and hold the state of a training too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import checkpoint, tensorbundle
from ..arguments import check_path
from ..cells import ACTIVATIONS
from ..gradcheck import error
from ..layers import Embedding, Sequential
from ..params import flatten_names
from ..reading import printable, reader
from ..shapes import params_dtype
from . import keras, npz, onnx, tf2, torch
from .format import Format, Loaded, checked_params
from .hdf5 import is_hdf5
from .infer import Options, check_agrees, in_checkpoint, model_from, shapes_of

FORMATS: dict[str, Format] = {"tf2": tf2, "keras": keras, "torch": torch, "onnx": onnx, "npz": npz}
SUFFIXES = {suffix: kind for kind, module in FORMATS.items() for suffix in module.SUFFIXES}
LEGACY = (".h5", ".hdf5")  # of Keras's older files, which are not written
TOLERANCES = {"float16": 4e-3, "float32": 2e-6, "float64": 1e-12}
BATCH, TIME = 3, 7  # of the random inputs that are run through both


class Source(NamedTuple):
    """What was read: a model with its parameters, and from a training checkpoint the rest of it."""

    format: str
    loaded: Loaded
    checkpoint: checkpoint.Checkpoint | None = None


def add_parser(commands: Any) -> None:
    """Add the sub-command ``convert`` to what ``argparse``'s ``add_subparsers`` returned."""
    parser = commands.add_parser("convert", help="take a model to another library's file, or from one")
    parser.add_argument("source", metavar="SRC", help="a checkpoint (prefix or directory) or a file of a known suffix")
    parser.add_argument("target", metavar="DST", help=f"a prefix with .ckpt in it, or one of {', '.join(SUFFIXES)}")
    formats = (*checkpoint.NAMINGS, *FORMATS)
    parser.add_argument("--to", choices=formats, help="the format of DST, if its name does not tell")
    parser.add_argument("--averaged", action="store_true", help="take the moving average of the parameters (ema_decay)")
    known = "for a SRC that does not describe its model: "
    choices = sorted(ACTIVATIONS)
    parser.add_argument("--forget-bias", type=float, help=known + "what is added to the forget gate at run time")
    parser.add_argument("--activation", choices=choices, help=known + "the activation of the recurrent cells")
    parser.add_argument("--dense-activation", choices=choices, help=known + "the activation of Dense layers")
    parser.add_argument("--cell-clip", type=float, help=known + "default none")
    parser.add_argument("--proj-clip", type=float, help=known + "default none")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry out the command; the exit code is 1 if the result disagrees with the source."""
    given = Options(*(getattr(options, name) for name in Options._fields))
    try:
        chosen = {"to": options.to, "options": given, "averaged": options.averaged}
        agrees = convert(options.source, options.target, **chosen, report=lambda line: print(printable(line)))
        return 0 if agrees else 1
    except ImportError as missing:
        raise ValueError(str(missing)) from missing


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str | None = None,
    options: Options | None = None,
    averaged: bool = False,
    report: Callable[[str], None] = print,
) -> bool:
    """Convert one file into another, say what became what, and run a random batch through both.

    Parameters
    ----------
    source, target : path
    to : str, optional
        ``tf``, ``tf1.0`` or a key of `FORMATS`, if the name of `target` does not tell.
    options : Options, optional
        What a source without a description does not tell.
    averaged : bool, default False
        Take the moving average of the parameters, which `fit` keeps with `ema_decay`, in their place.
    report : callable
        Takes each line.

    Returns
    -------
    bool
        False if the result was run and its outputs disagree.

    Raises
    ------
    ValueError
        For an unknown format, a source that does not tell enough or has no moving average if `averaged`, and what the
        target cannot express.
    ImportError
        If the library that reads or writes a format is missing: the message says how to install it.
    OSError
        If a file cannot be read or written.
    """
    source, target = check_path(source, "source", "convert"), check_path(target, "target", "convert")
    kind = target_format(target, to)
    found = read(source, options or Options(), averaged)
    model, params, _ = found.loaded
    report(f"{source}: {found.format}, {sum(w.size for w in flatten_names(params).values()):,} weights")
    in_source = getattr(FORMATS.get(found.format), "mapping_in", None)  # of a format that has a layer by many names
    _report_mapping(in_source(source, model) if in_source else _mapping(found.format, model), params, "<-", report)
    written, code = _write(target, kind, found)
    report(f"{written}: {kind}")
    if kind == "tf1.0":
        report("  kernel and bias of every cell -> weights and biases")
    _report_mapping(_mapping(kind, model), params, "->", report)
    _report_left_out(found, kind, report)
    report("\n" + code)
    return _agrees(kind, written, code, model, params, report)


# --- formats --------------------------------------------------------------------------------------------------


def target_format(path: str, to: str | None) -> str:
    """The format that the name of a file to be written tells, or `to`; ValueError if both or neither do."""
    formats = (*checkpoint.NAMINGS, *FORMATS)
    if to is not None and to not in formats:
        raise ValueError(f"convert: to must be one of {', '.join(formats)}, got {to!r}")
    told = _suffix_format(path) or ("tf" if ".ckpt" in os.path.basename(path) else None)
    if to is None and told is None:
        raise ValueError(f"DST must have .ckpt or one of {', '.join(SUFFIXES)} in its name, or --to, got {path!r}")
    if to is not None and told not in (None, to) and not (told == "tf" and to in ("tf1.0", "tf2")):
        raise ValueError(f"DST {path!r} is a name for {told}, and --to says {to}")
    return to or str(told)


def source_format(path: str) -> str:
    """The format of a file to be read: by its suffix, or of a checkpoint by what is in it."""
    told = _suffix_format(path) or ("keras" if path.endswith(LEGACY) else None)
    if told is not None:
        return told
    path = checkpoint.prefix_of(path)
    if os.path.isfile(path) and is_hdf5(path):  # of any name: models are called .h5, .hdf5, or nothing at all
        return "keras"
    if os.path.isfile(path) and not os.path.isfile(f"{path}.index") and not tensorbundle.is_table(path):
        raise ValueError(f"SRC must be a checkpoint's prefix or have one of {', '.join(SUFFIXES)}, got {path!r}")
    return "tf2" if tf2.is_object_based(path) else "tf"


def _suffix_format(path: str) -> str | None:
    return next((kind for suffix, kind in SUFFIXES.items() if path.endswith(suffix)), None)


# --- reading --------------------------------------------------------------------------------------------------


@reader
def read(path: str, options: Options, averaged: bool = False) -> Source:
    """A model and its parameters, or with `averaged` their moving average, from any format.

    Raises ValueError if the file does not tell enough, has no moving average, or contradicts `options`.
    """
    kind, stored = source_format(path), None
    path = checkpoint.prefix_of(path)
    if kind == "tf":
        stored = checkpoint.load_checkpoint(path)
        if averaged and stored.averaged is not None:  # the optimizer's state belongs to the parameters themselves
            stored = stored._replace(params=stored.averaged, averaged=None, opt_state=None, training=None)
            averaged = False
        shapes = shapes_of(flatten_names(stored.params))
        model = stored.model or model_from(in_checkpoint(shapes, path), options, path)
        loaded = Loaded(model, checked_params(model, stored.params, path), stored.extra)
    else:
        loaded = FORMATS[kind].load(path, options=options)
    if averaged:
        raise ValueError(f"{path} holds no moving average of every parameter, which a run of fit with ema_decay saves")
    check_agrees(loaded.model, options, path)
    return Source(kind, loaded, stored)


# --- writing --------------------------------------------------------------------------------------------------


def _write(target: str, kind: str, found: Source) -> tuple[str, str]:
    """The path that was written, and the lines of Python that open it."""
    model, params, extra = found.loaded
    os.makedirs(os.path.dirname(target) or os.curdir, exist_ok=True)
    if kind in FORMATS:
        return target, FORMATS[kind].save(target, model, params, extra=extra)
    kept = ("opt_state", "step", "training", "averaged")
    options: dict[str, Any] = {key: getattr(found.checkpoint, key, None) for key in kept}
    if "last" in (options["training"] or {}):  # a run goes on from its last parameters, and these are the best
        del options["training"]
    options |= {"model": model, "extra": extra, "max_to_keep": None, "names": kind}
    prefix = checkpoint.save_checkpoint(target, params, **options)
    return prefix, f"from minilstm import load_checkpoint\n\ncheckpoint = load_checkpoint({prefix!r})\n"


def _mapping(kind: str, model: Sequential) -> dict[str, list[str]]:
    return FORMATS[kind].mapping(model) if kind in FORMATS else {}


def _report_mapping(mapping: dict[str, list[str]], params: Any, arrow: str, report: Callable[[str], None]) -> None:
    """A line for each layer's weights, if they have other names than ours."""
    names = flatten_names(params)
    for path, theirs in mapping.items():
        ours = [name.removeprefix(f"{path}/") for name in names if name.startswith(f"{path}/")]
        report(f"  {path}: {', '.join(ours)} {arrow} {', '.join(theirs)}")


def _report_left_out(found: Source, kind: str, report: Callable[[str], None]) -> None:
    """A line for what a training checkpoint holds and the target does not."""
    stored = found.checkpoint
    if stored is not None and kind in FORMATS and (stored.opt_state is not None or stored.step is not None):
        report("  left out: the step and the optimizer's state")
    if stored is not None and stored.others:
        report(f"  left out: {', '.join(stored.others)}")


# --- verifying ------------------------------------------------------------------------------------------------


def _agrees(kind: str, path: str, code: str, model: Sequential, params: Any, report: Callable[[str], None]) -> bool:
    """Whether a random batch gives the same outputs here and there; also True, and reported, if that cannot be run."""
    module, dtype = FORMATS.get(kind), str(params_dtype(params, np.float32))
    if module is not None and dtype not in module.RUNS:
        runs = ", ".join(module.RUNS)
        report(f"not verified: {module.RUNTIME} runs LSTMs in {runs} alone, and this is {dtype}")
        return True
    inputs = random_inputs(model, params)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets on stderr otherwise
    try:
        if module is not None:
            forward = module.opened(code)
        else:
            forward = partial(model, checkpoint.load_checkpoint(path).params)
        found = error(forward(inputs), model(params, inputs))
    except ImportError as missing:
        report(f"not verified: {missing}")
        return True
    agrees = found <= TOLERANCES[dtype]
    verdict = "verified" if agrees else "DIFFERENT"
    report(f"{verdict}: a random batch {inputs.shape} gives our outputs, to {found:.1e} in {dtype}")
    return agrees


def random_inputs(model: Sequential, params: Any) -> np.ndarray:
    """A batch ``[3, 7, features]`` for a model, or ``[3, 7]`` of whole numbers if it begins with an Embedding."""
    rng = np.random.default_rng(0)
    first = model.layers[0]
    if isinstance(first, Embedding):
        return rng.integers(0, first.vocabulary, (BATCH, TIME))
    features = model.input_dim(params) or 1
    return rng.normal(size=(BATCH, TIME, features)).astype(params_dtype(params, np.float32))
