"""Compare the printed numbers of two documents with ours; this project started from them.

    python -m experiments.notebook

From the notebook: gates, states and outputs of two steps, computed in NumPy and by TensorFlow. From the thread: outputs
of seven steps, with the forget bias that its question had left out, and without it. `experiments.notebook_figures` says
which documents these are. Writes notebook.csv (every printed number beside ours) and two pictures of the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import common
from . import notebook_figures as prints
from .notebook_figures import array, notebook_trace, seed_0_trace

PRINTED_DIGITS = 0.6e-8  # half a unit of the eighth decimal, and a little more for numbers that end in 5
FLOAT32 = 1.5e-7  # TensorFlow computed in float32
NAMES = {
    "f": "forget gate f", "i": "input gate i", "j": "candidate j", "c": "cell state c", "o": "output gate o",
    "h": "output h",
}  # fmt: skip


class Comparison(NamedTuple):
    """An array that a document prints, and the same array as minilstm computes it."""

    source: str  # the document, and the program that printed
    what: str  # the quantity, and its step counted from 1
    printed: np.ndarray  # [rows, units]; NaN where the print was cut off
    ours: np.ndarray
    tolerance: float

    @property
    def difference(self) -> float:
        """The largest absolute difference between printed numbers and ours."""
        return float(np.nanmax(np.abs(self.printed - self.ours)))


def comparisons() -> list[Comparison]:
    """Every printed array whose weights can be drawn again, in the order of the documents."""
    gates, outputs = notebook_trace(), seed_0_trace()["h"][0]
    numpy, tensorflow = ("NumPy", PRINTED_DIGITS), ("TensorFlow", FLOAT32)
    arrays = [
        *((numpy, name, 1, text) for name, text in prints.FIRST_STEP.items()),
        *((numpy, name, 2, text) for name, text in prints.SECOND_STEP.items()),
        (tensorflow, "c", 2, prints.TENSORFLOW_C),
        (tensorflow, "h", 2, prints.TENSORFLOW_H),
        (tensorflow, "h", 1, prints.TENSORFLOW_H1),
    ]
    found = []
    for (program, allowed), name, step, text in arrays:
        what, ours = f"{NAMES[name]}, step {step}", gates[name][:, step - 1]
        found.append(Comparison(f"notebook, {program}", what, array(text), ours, allowed))
    for (program, allowed), printed in ((numpy, prints.SEED_0_NUMPY), (tensorflow, prints.SEED_0_TENSORFLOW)):
        found.append(Comparison(f"thread, {program}", "output h, steps 1 to 7", printed, outputs, allowed))
    return found


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the experiment; returns what results.json holds."""
    flags = common.program("experiments.notebook", "Compare the printed numbers of two documents with ours.")
    common.add_output_flags(flags)
    args = common.parse(flags, argv)
    common.begin(args)
    found = comparisons()
    without_bias = seed_0_trace(forget_bias=0.0)["h"][0]
    gaps = np.abs(without_bias - prints.SEED_0_TENSORFLOW).max(axis=1)
    sources = list(dict.fromkeys(one.source for one in found))
    results = {
        "largest_difference": {s: max(one.difference for one in found if one.source == s) for s in sources},
        "tolerance": {s: max(one.tolerance for one in found if one.source == s) for s in sources},
        "agree": sum(one.difference <= one.tolerance for one in found),
        "compared": len(found),
        "without_forget_bias": {f"step {step}": float(gap) for step, gap in enumerate(gaps, start=1)},
    }
    rows = [
        (*(text.replace(",", "") for text in (one.source, one.what)), *place, one.printed[place], one.ours[place])
        for one in found
        for place in np.ndindex(one.printed.shape)
        if np.isfinite(one.printed[place])
    ]
    common.write_csv(args.out / "notebook.csv", ("source", "what", "row", "unit", "printed", "ours"), rows)
    draw_notebook(args.out / "gates.png")
    draw_thread(args.out / "forget_bias.png")
    text = "\n\n".join([*map(side_by_side, found), conclusion(results, gaps)])
    common.finish(args, results, text, report)
    return results


def side_by_side(one: Comparison) -> str:
    """The printed rows, ours beside them, and the largest difference."""
    lines = [f"{one.source}: {one.what}", f"{'printed':^36} | {'minilstm':^36}"]
    for printed, ours in zip(one.printed, one.ours, strict=True):
        cells = ["" if np.isnan(value) else f"{value:.8f}" for value in printed]
        lines.append(" ".join(f"{c:>11}" for c in cells) + "  | " + " ".join(f"{value:>11.8f}" for value in ours))
    return "\n".join([*lines, f"largest difference {one.difference:.1e}, allowed {one.tolerance:.1e}"])


def conclusion(results: dict[str, Any], gaps: np.ndarray) -> str:
    """A few lines: the comparison for each source, and the effect of the forget bias."""
    differences = results["largest_difference"]
    rows = [(s, f"{differences[s]:.1e}", f"{results['tolerance'][s]:.1e}") for s in differences]
    return (
        common.table(("printed by", "largest difference", "allowed"), rows)
        + f"\n\n{results['agree']} of {results['compared']} arrays agree.\n"
        "The notebook shows no output gate of step 2: its cell prints the input gate again.\n"
        "The thread without the forget bias of 1, largest difference from TensorFlow's print, steps 1 to 7:\n"
        f"  {' '.join(f'{gap:.1e}' for gap in gaps)}: only the first step has nothing to forget.\nfiles:"
    )


def draw_notebook(path: Path) -> None:
    """Draw every gate and state of the notebook's two steps as a map of sequences and units, with the numbers."""
    from matplotlib.figure import Figure  # slow to load, and only needed here

    from minilstm import plotting

    gates = notebook_trace()
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    axes = figure.subplots(2, len(NAMES), sharex=True, sharey=True)
    for (step, name), ax in zip(((s, n) for s in range(2) for n in NAMES), axes.ravel(), strict=True):
        values = gates[name][:, step]
        image = ax.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
        for (row, unit), value in np.ndenumerate(values):
            colour = "white" if abs(value) > 0.7 else "black"  # the ends of the colour map are dark
            ax.text(unit, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        if step == 0:
            ax.set_title(NAMES[name])
        else:
            ax.set(xlabel="unit", xticks=range(3))
        if name == "f":
            ax.set(ylabel=f"step {step + 1}\nsequence", yticks=range(7))
    figure.colorbar(image, ax=axes, label="value", shrink=0.8)
    plotting.save(figure.axes[0], path)


def draw_thread(path: Path) -> None:
    """Draw the thread's gates with and without the forget bias, and its outputs beside TensorFlow's print."""
    from matplotlib.figure import Figure  # slow to load, and only needed here

    from minilstm import plotting

    axes = Figure(figsize=(11, 6), layout="constrained").subplots(2, 2, sharex=True, sharey="row")
    for forget_bias, (above, below) in zip((1.0, 0.0), axes.T, strict=True):
        steps = seed_0_trace(forget_bias)
        plotting.plot_gates(steps, above)
        above.set(title=f"forget_bias={forget_bias:g}: gates, mean and range of 3 units", xlabel="")
        for unit in range(3):
            colour = plotting.SHADES[unit] if unit != 1 else plotting.FREE
            below.plot(steps["h"][0, :, unit], color=colour, label=f"minilstm, unit {unit}")
            printed = prints.SEED_0_TENSORFLOW[:, unit]
            below.plot(printed, "o", color=plotting.TRUTH, fillstyle="none", label="TensorFlow" if unit == 2 else None)
        below.spines[["top", "right"]].set_visible(False)
        below.set(title="output h", xlabel="time step")
    axes[1, 0].legend(frameon=False, fontsize="small", ncols=2)
    plotting.save(axes[0, 0], path)


if __name__ == "__main__":
    main()
