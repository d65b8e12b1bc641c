"""Compare the character model with the same model in PyTorch: the same text, batches, sizes and optimizer.

    OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 python -m experiments.char_lm_torch        (needs PyTorch)

Both learn the text of `experiments.char_lm` with Adam at a constant learning rate, without dropout. The same code
scores both on the held-out part. They take turns, a block of windows each, so that other work on the machine disturbs
both. The ratio of times is the ratio of the medians over blocks. PyTorch's ``nn.LSTM`` starts from its own initial
weights; with --same-weights it starts from ours, and then its forget bias is 1 too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilstm import Adam, Sequential, fit, losses, tbptt
from minilstm.data import ContiguousBatches
from minilstm.export.layout import to_torch
from minilstm.optional import library
from minilstm.wrappers import innermost

from . import common
from .char_lm import CLIP_NORM, Settings, batches_of, build
from .char_lm_text import Corpus, bits, read_corpus

torch: Any = library("torch", "experiments.char_lm_torch", "pip install torch")

SETTINGS = Settings(learning_rate=2e-3)  # the same rate at every step


class TorchModel:
    """``nn.Embedding``, ``nn.LSTM`` and ``nn.Linear`` with PyTorch's initial weights, and Adam."""

    def __init__(self, classes: int, settings: Settings, seed: int) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
        torch.manual_seed(seed)
        units = settings.units
        self.modules = torch.nn.ModuleDict({
            "embedding": torch.nn.Embedding(classes, units),
            "lstm": torch.nn.LSTM(units, units, settings.layers, batch_first=True),
            "dense": torch.nn.Linear(units, classes),
        })  # fmt: skip
        self.optimizer = torch.optim.Adam(self.modules.parameters(), lr=settings.learning_rate)
        self.state: Any = None

    def copy_weights(self, model: Sequential, params: dict[str, Any]) -> None:
        """Start from the weights of a model of `experiments.char_lm.build` instead of PyTorch's own."""
        _, _, rnn, _ = model.layers
        tensors = {
            "embedding.weight": params["embedding"]["embeddings"],
            "dense.weight": params["dense"]["kernel"].T,
            "dense.bias": params["dense"]["bias"],
        }
        weights = rnn.cell.inner_params(params["rnn"]["multi_rnn_cell"])
        for depth, (cell, part) in enumerate(zip(innermost(rnn.cell), weights, strict=True)):
            tensors.update({f"lstm.{name}_l{depth}": value for name, value in to_torch(cell, part).items()})
        self.modules.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})

    def forward(self, inputs: np.ndarray, state: Any) -> tuple[Any, Any]:
        """The logits ``[batch, time, classes]`` of labels ``[batch, time]``, and the state after them."""
        outputs, state = self.modules["lstm"](self.modules["embedding"](torch.from_numpy(inputs)), state)
        return self.modules["dense"](outputs), state

    def train_on(self, batch: dict[str, np.ndarray]) -> float:
        """Train on one window; returns the loss before the update."""
        state = None if batch["reset"].all() else self.state
        self.optimizer.zero_grad()
        logits, state = self.forward(batch["inputs"], state)
        targets = torch.from_numpy(batch["targets"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.state = tuple(part.detach() for part in state)
        return float(loss.detach())


class Turns:
    """Batches for `fit`; each time `fit` has trained on a block of windows, PyTorch trains on the same block.

    `ours` and `theirs` are the seconds of each block.
    """

    def __init__(self, batches: ContiguousBatches, peer: TorchModel, block: int) -> None:
        self.batches, self.peer, self.block = batches, peer, block
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.done = 0  # windows that PyTorch has trained
        self.started = 0.0

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step; if a block is complete, PyTorch has its turn first."""
        if step == self.done + self.block:
            self.turn()
        if step == self.done:  # for step 0 before `fit` begins: what it does with the first batch counts as ours
            self.started = time.perf_counter()
        return self.batches(step)

    def turn(self) -> None:
        """End our block and train PyTorch on the same windows."""
        begin = time.perf_counter()
        self.ours.append(begin - self.started)
        for step in range(self.done, self.done + self.block):
            self.peer.train_on(self.batches(step))
        self.theirs.append(time.perf_counter() - begin)
        self.done += self.block


def score(batches: ContiguousBatches, forward: Callable[[np.ndarray, Any], tuple[np.ndarray, Any]]) -> float:
    """Bits per character over all batches; the state is carried from one to the next."""
    total, state = 0.0, None
    for step in range(len(batches)):
        batch = batches(step)
        logits, state = forward(batch["inputs"], state)
        total += float(losses.softmax_cross_entropy(logits, batch["targets"])) * batch["targets"].size
    return bits(total / batches.targets.size)


def compare(
    corpus: Corpus, settings: Settings, windows: int, block: int, seed: int, same_weights: bool,
    progress: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train both on `windows` windows (a multiple of `block`); returns bits per character, seconds and their ratio."""
    training, held_out = batches_of(corpus.training, settings), batches_of(corpus.held_out, settings)
    model, peer = build(len(corpus.vocabulary), settings), TorchModel(len(corpus.vocabulary), settings, seed)
    params = model.init(seed)
    if same_weights:
        peer.copy_weights(model, params)
    turns = Turns(training, peer, block)
    result = fit(
        model, params, losses.softmax_cross_entropy, turns, optimizer=Adam(settings.learning_rate), epochs=1,
        steps_per_epoch=windows, tbptt=tbptt(training.num_steps), clip_norm=CLIP_NORM, seed=seed, progress=progress,
    )  # fmt: skip
    turns.turn()

    def theirs(inputs: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        with torch.no_grad():
            logits, state = peer.forward(inputs, state)
        return logits.numpy(), state

    return {
        "bits_per_character": {
            "minilstm": score(held_out, lambda inputs, state: model.apply(result.params, inputs, state=state)),
            "torch": score(held_out, theirs),
        },
        "seconds": {"minilstm": sum(turns.ours), "torch": sum(turns.theirs)},
        "seconds_by_block": {"minilstm": turns.ours, "torch": turns.theirs},
        "time_ratio": float(np.median(turns.ours) / np.median(turns.theirs)),
        "threads": torch.get_num_threads(),
        "windows": windows,
        "initial_weights": "ours in both" if same_weights else "each its own",
        "versions": {"numpy": np.__version__, "torch": str(torch.__version__)},
        "text": corpus.describe(),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Compare, print the table and write results.json."""
    flags = common.program("experiments.char_lm_torch", __doc__.split("\n")[0])
    flags.add_argument("--out", type=common.home, default="runs/char_lm_torch", help="folder of results.json")
    flags.add_argument("--windows", type=common.positive, default=2000, help="windows that each trains on")
    flags.add_argument("--block", type=common.positive, default=100, help="windows in a turn")
    flags.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    flags.add_argument("--same-weights", action="store_true", help="both start from our initial weights")
    args = common.parse(flags, argv)
    if args.windows % args.block:
        flags.error(f"--windows must be a multiple of --block, got {args.windows} and {args.block}")
    common.begin(args)
    results = compare(read_corpus(), SETTINGS, args.windows, args.block, args.seed, args.same_weights)
    common.write_json(args.out / "results.json", results)
    scores, seconds = results["bits_per_character"], results["seconds"]
    rows = [(name, f"{scores[name]:.4f}", f"{seconds[name]:.1f}") for name in scores]
    print(common.table(("", "bits per held-out character", "seconds"), rows))
    more, slower = 100 * (scores["minilstm"] / scores["torch"] - 1), results["time_ratio"]
    print(f"\n{args.windows} windows, initial weights: {results['initial_weights']}, {results['threads']} threads; "
          f"bits: {more:+.2f}%, median time of {args.block} windows: {slower:.2f} times PyTorch's")  # fmt: skip
    return results


if __name__ == "__main__":
    main()
