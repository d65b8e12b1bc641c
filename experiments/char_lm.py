"""Train a character model on any text, by default on the source of the installed Python standard library.

    python -m experiments.char_lm
    python -m experiments.char_lm --sample 500 --temperature 0.8 --prompt "def "

The model learns the first nine tenths of the text. The last tenth is scored in bits per character, beside n-grams. Both
parts are read as in Zaremba, Sutskever and Vinyals 2014 (arXiv 1409.2329): the text is cut into rows, and in every row
each window continues where the window before ended. The state is carried from window to window, and gradients stop at
the edge of a window. Dropout is also theirs: on the values that one layer passes to the next, never on the values that
a cell passes to its own next step. A row starts from a state of zeros, in training and in scoring.

The second command prints a text that the trained model writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilstm import Adam, FitResult, LSTMCell, fit, generate, losses, sampler, schedules
from minilstm.checkpoint import latest_checkpoint, load_checkpoint
from minilstm.data import ContiguousBatches, contiguous_batches
from minilstm.initializers import Uniform
from minilstm.layers import RNN, Dense, Dropout, Embedding, Sequential
from minilstm.params import tree_size
from minilstm.wrappers import DropoutWrapper, MultiRNNCell

from . import common
from .char_lm_text import LIBRARY_CHARACTERS, Corpus, bits, decode, encode, read_corpus, simple_forecasts

CLIP_NORM = 5.0
SAMPLE_LENGTH = 300  # characters written after every epoch
SHOWN = (400, 100)  # the picture shows the costs of 100 held-out characters, after the first 400


class Settings(NamedTuple):
    """The model and its training, as the flags can change them."""

    units: int = 128
    layers: int = 2
    epochs: int = 5
    learning_rate: float = 4e-3  # falls to 0 along half a cosine
    dropout: float = 0.0  # share dropped between layers; five passes still improve the held-out score without it
    batch_size: int = 50  # rows that the text is cut into
    num_steps: int = 50  # characters of a window


def build(classes: int, settings: Settings) -> Sequential:
    """The model, from labels ``[batch, time]`` to logits ``[batch, time, classes]``."""
    keep = 1 - settings.dropout
    cells = [DropoutWrapper(LSTMCell(settings.units), output_keep_prob=keep) for _ in range(settings.layers)]
    embedding = Embedding(classes, settings.units, initializer=Uniform(1.0))  # as wide as the output of a cell
    return Sequential(embedding, Dropout(settings.dropout), RNN(MultiRNNCell(cells)), Dense(classes))


def batches_of(labels: np.ndarray, settings: Settings) -> ContiguousBatches:
    """The windows of one part of the text; characters that do not fill a column of all rows are left out."""
    return contiguous_batches(labels, settings.batch_size, settings.num_steps)


def train(corpus: Corpus, settings: Settings, seed: int, **fit_options: Any) -> FitResult:
    """Train on the first part of the text and score the second after every epoch; further options go to `fit`."""
    model = build(len(corpus.vocabulary), settings)
    batches = batches_of(corpus.training, settings)
    rate = schedules.cosine(settings.learning_rate, settings.epochs * len(batches))
    return fit(
        model, model.init(seed), losses.softmax_cross_entropy, batches, optimizer=Adam(rate), epochs=settings.epochs,
        validation_data=batches_of(corpus.held_out, settings), clip_norm=CLIP_NORM, seed=seed,
        extra={"vocabulary": corpus.vocabulary, "text": corpus.describe()}, **fit_options,
    )  # fmt: skip


def sample(
    model: Sequential, params: Any, vocabulary: str, prompt: str, length: int, temperature: float, seed: Any
) -> str:
    """Write `length` characters after `prompt`; `seed` is anything that ``np.random.default_rng`` takes.

    Raises ValueError for an empty prompt: the model must have read at least one character.
    """
    if not prompt:
        raise ValueError("char_lm: prompt must hold at least one character, got ''")
    draw, drawn = sampler(temperature), []

    def next_input(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn.append(draw(logits, rng))
        return drawn[-1]

    # `generate` draws between its outputs: `length` draws need one output more.
    generate(model, params, encode(prompt, vocabulary)[None], length + 1, next_input=next_input, rng=seed)
    return decode(np.concatenate(drawn), vocabulary)


def sample_from(folder: Path, prompt: str, length: int, temperature: float, seed: int) -> str:
    """`sample` from the newest checkpoint in `folder`; nothing else is read.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If the checkpoint is not of a character model, or the text that it learned has not all characters of the prompt.
    """
    loaded = load_checkpoint(folder)
    if loaded.model is None or "vocabulary" not in (loaded.extra or {}):
        raise ValueError(f"char_lm: {loaded.prefix} holds no character model: it has no vocabulary")
    unknown = sorted(set(prompt) - set(loaded.extra["vocabulary"]) - {"\n"})
    if unknown:
        raise ValueError(f"char_lm: prompt holds {''.join(unknown)!r}, which the text of {loaded.prefix} does not")
    return sample(loaded.model, loaded.params, loaded.extra["vocabulary"], prompt, length, temperature, seed)


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Train, or with --sample write a text; returns what results.json holds, or the sample."""
    defaults = Settings()
    flags = common.parser("experiments.char_lm", "Train a character model on any text.", **defaults._asdict())
    flags.add_argument("--text", nargs="+", metavar="FILE", help="files to learn instead of the standard library")
    flags.add_argument("--limit", type=common.positive, help="use at most this many characters; by default all of "
                       f"--text, or {LIBRARY_CHARACTERS:,} of the standard library")  # fmt: skip
    flags.add_argument("--dropout", type=float, default=defaults.dropout, help="share dropped between layers")
    flags.add_argument("--batch-size", type=common.positive, default=defaults.batch_size, help="rows of the text")
    flags.add_argument("--num-steps", type=common.positive, default=defaults.num_steps, help="characters of a window")
    flags.add_argument("--sample", type=common.positive, help="write this many characters with the checkpoint in --out")
    flags.add_argument("--temperature", type=float, default=1.0, help="of samples; low ones prefer likely characters")
    flags.add_argument("--prompt", default="\n", help="text that a sample continues")
    args = common.parse(flags, argv)
    if not args.prompt:
        flags.error("--prompt must hold at least one character")
    if args.sample:
        written = sample_from(args.out, args.prompt, args.sample, args.temperature, args.seed)
        report(args.prompt + written)
        return {"prompt": args.prompt, "sample": written}

    settings = Settings(**{name: getattr(args, name) for name in Settings._fields})
    started = time.perf_counter()
    corpus = read_corpus([Path(name) for name in args.text] if args.text else None, args.limit)
    held_out = batches_of(corpus.held_out, settings)
    model = build(len(corpus.vocabulary), settings)
    sampler(args.temperature)  # raises for a wrong temperature, before anything is written
    if args.resume:
        check_same_text(args.out, corpus)
    common.begin(args)

    def write_sample(result: FitResult) -> None:
        """Sample after an epoch; print the text and add it to samples.txt."""
        seed = [args.seed, 3, result.step]
        written = sample(model, result.params, corpus.vocabulary, args.prompt, SAMPLE_LENGTH, args.temperature, seed)
        epoch, score = len(result.history["val_loss"]), bits(result.history["val_loss"][-1])
        entry = f"--- epoch {epoch}, {score:.3f} bits per held-out character ---\n{args.prompt}{written}\n"
        with open(args.out / "samples.txt", "a", encoding="utf-8") as file:
            file.write(entry)
        if not args.quiet:
            report(f"\n{entry}")

    result = train(
        corpus, settings, args.seed, callbacks=[write_sample], progress=False if args.quiet else None,
        checkpoint_dir=args.out, resume=args.resume,
    )  # fmt: skip
    simple = simple_forecasts(corpus, held_out.targets.size)
    nats = {"lstm": result.history["val_loss"][-1], **simple}
    results = {
        "bits_per_character": {name: bits(value) for name, value in nats.items()},
        "nats_per_character": nats,
        "held_out": {
            "characters": len(corpus.held_out),
            "scored": held_out.targets.size,
            "unknown": int(np.sum(held_out.targets == 0)),
            "state": f"carried from window to window in each of {settings.batch_size} rows, zeros at a row's start",
        },
        "text": corpus.describe(),
        "vocabulary": len(corpus.vocabulary),
        "parameters": tree_size(result.params),
        "seed": args.seed,
        "step": result.step,
    }
    write_pictures(args.out, corpus, model, result, simple)
    rows = [(name, f"{bits(value):.3f}") for name, value in nats.items()]
    table = common.table(("held-out text", "bits per character"), rows)
    work = f"{result.step} windows, {time.perf_counter() - started:.0f} s; files:"
    common.finish(args, results, f"{table}\n\n{work}", report)
    return results


def check_same_text(folder: Path, corpus: Corpus) -> None:
    """Raise ValueError if the run in `folder` learned another text, such as the library of another Python."""
    if latest_checkpoint(folder) is not None:
        before = (load_checkpoint(folder).extra or {}).get("text", {}).get("sha256")
        now = corpus.describe()["sha256"]
        if before != now:
            raise ValueError(f"char_lm: the run in {str(folder)!r} learned a text with SHA-256 {before}, got {now}")


def write_pictures(out: Path, corpus: Corpus, model: Sequential, result: FitResult, simple: dict[str, float]) -> None:
    """Draw loss.png, and surprise.png: the cost of each character in a part of the held-out text."""
    from minilstm import plotting  # matplotlib is slow to load, and only needed here

    shown = {name: value for name, value in simple.items() if name != "uniform"}
    ax = plotting.plot_loss(result.history, baselines=shown)
    ax.set(ylabel="nats per character", yscale="linear")
    plotting.save(ax, out / "loss.png")

    before, count = SHOWN
    labels = corpus.held_out[: before + count]
    logits = model(result.params, labels[None, :-1])[0].astype(np.float64)
    costs = [bits(losses.softmax_cross_entropy(row, label)) for row, label in zip(logits, labels[1:], strict=True)]
    costs, characters = costs[-count:], decode(labels[1:], corpus.vocabulary)[-count:]
    ax = plotting.new_axes(14.0, 3.0)
    ax.bar(np.arange(len(costs)), costs, color=plotting.FORECAST)
    readable = [c if c.isascii() and c.isprintable() else "\u21b5" if c == "\n" else "\u00b7" for c in characters]
    ax.set_xticks(np.arange(len(costs)), readable, family="monospace", fontsize=8, parse_math=False)
    ax.tick_params(axis="x", length=0)
    ax.margins(x=0.005)
    ax.set(ylabel="bits", title="What each character of held-out text costs")
    plotting.save(ax, out / "surprise.png")


if __name__ == "__main__":
    main()
