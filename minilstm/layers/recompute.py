"""Sequences of any length: only the states between segments are kept, and each segment is computed twice.

Backpropagation through time keeps what every step computed. Here the forward pass keeps the states at the borders of
segments alone, and the backward pass computes a segment again before it undoes it (Chen et al. 2016, arXiv 1604.06174;
Gruslys et al. 2016, arXiv 1606.03401). With n segments of T / n steps the memory is that of n states and of T / n
steps, least for n near the square root of T; the price is a second forward pass.

The derivatives of a segment are autograd's, and so those of the hand-derived pass of its cell; second derivatives go
the same way. Outputs and states have the same bits as without segments, unless a product over all steps at once is
split (inputs that are not part of the recurrent product). Gradients of weights are sums over segments of sums over
steps, and differ in the last bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from autograd.tracer import isbox

from ..arguments import check_whole
from ..options import option
from ..params import tree_leaves, tree_map, tree_unflatten
from ..primitives import filled, primitive, result_of
from ..second.lists import pull_back, push_along
from ..second.pairs import register_pair

Array = Any


def recompute_option() -> Any:
    """The field `recompute` of an RNN: None, "auto", or the number of steps of a segment."""

    def check(value: Any, name: str, where: str) -> Any:
        if value is None or (isinstance(value, str) and value == "auto"):
            return value
        if isinstance(value, str):
            raise ValueError(f"{where}: {name} must be None, 'auto' or a number of steps, got {value!r}")
        return check_whole(value, name, where)

    return option(None, check)


class Segments:
    """How a sequence is cut, how a piece is run, and what is kept of a pass: the state before each piece.

    Parameters
    ----------
    run : callable
        ``run(params, inputs, state, lengths, masks)`` returns outputs and final state, as `minilstm.sequences.run`.
    steps : int or "auto"
    params, inputs, state, lengths, masks
        What `run` is given for the whole sequence.
    last : integer array [batch], optional
        The step of each sequence whose output alone is wanted.
    """

    def __init__(
        self, run: Any, steps: Any, params: Any, inputs: Array, state: Any, lengths: Any, masks: Any, last: Any
    ) -> None:
        time = len(inputs)
        size = math.ceil(math.sqrt(time)) if steps == "auto" else steps
        self.run, self.like, self.lengths, self.masks, self.last = run, (state, params), lengths, masks, last
        self.borders = [(start, min(start + size, time)) for start in range(0, time, size)]
        self.state_count = len(tree_leaves(state))
        self.wanted = [isbox(inputs)] + [True] * len(tree_leaves([state, params]))
        self.before: list[Any] = []
        self.directions: Any = None
        self.r_before: list[Any] = []

    def function(self, n: int) -> Any:
        """Segment n as a function of a list: inputs, then state and weights, to outputs and new state."""
        start, stop = self.borders[n]
        lengths = None if self.lengths is None else np.clip(self.lengths - start, 0, stop - start)
        masks = None if self.masks is None else tree_map(lambda mask: mask[start:stop], self.masks)

        def segment(values: list[Array]) -> list[Array]:
            state, params = tree_unflatten(self.like, iter(values[1:]))
            outputs, state = self.run(params, values[0], state, lengths, masks)
            return [outputs, *tree_leaves(state)]

        return segment

    def cut(self, x: Array, n: int) -> Array:
        """The part of inputs or outputs in segment n; None stays None."""
        return None if x is None else x[slice(*self.borders[n])]

    def rows(self, n: int) -> tuple[Array, Array]:
        """The sequences whose last step is in segment n, and that step within it."""
        start, stop = self.borders[n]
        rows = np.flatnonzero((self.last >= start) & (self.last < stop))
        return self.last[rows] - start, rows

    def collect(self, results: Any) -> Array:
        """The outputs of all segments, one after the other, or of the last steps."""
        whole: Any = None
        for n, outputs in enumerate(results):
            if whole is None:
                batch, width = outputs.shape[1:]
                shape = (batch, width) if self.last is not None else (batch, self.borders[-1][1], width)
                whole = np.empty(shape, outputs.dtype)
            if self.last is None:
                whole[:, slice(*self.borders[n])] = outputs.swapaxes(0, 1)
            else:
                step, rows = self.rows(n)
                whole[rows] = outputs[step, rows]
        return whole if self.last is not None else whole.swapaxes(0, 1)

    def share(self, g: Array, n: int) -> Array:
        """The part of a derivative of `collect`'s result that belongs to the outputs of segment n."""
        if self.last is None:
            return self.cut(g, n)
        start, stop = self.borders[n]
        step, rows = self.rows(n)
        part = np.zeros((stop - start, *g.shape), g.dtype)
        part[step, rows] = g[rows]
        return part


def sequence(
    run: Any, steps: Any, params: Any, inputs: Array, state: Any, lengths: Any, masks: Any, last: Any
) -> tuple[Array, Any]:
    """Outputs and final state, as ``run(params, inputs, state, lengths, masks)``, or with `last` one output each."""
    segments = Segments(run, steps, params, inputs, state, lengths, masks, last)
    results = segmented(inputs, *tree_leaves([state, params]), segments=segments)
    leaves = (result_of(results, n + 1) for n in range(segments.state_count))
    return result_of(results, 0), tree_unflatten(state, leaves)


@primitive
def segmented(inputs: Array, *leaves: Array, segments: Segments) -> tuple[Array, ...]:
    """The forward pass: outputs, and the parts of the final state. `leaves` are those of the state and the weights."""
    count, segments.before = segments.state_count, []
    state, weights = list(leaves[:count]), leaves[count:]

    def outputs() -> Any:
        for n in range(len(segments.borders)):
            segments.before.append(list(state))
            found, *state[:] = segments.function(n)([segments.cut(inputs, n), *state, *weights])
            yield found

    whole = segments.collect(outputs())
    return whole, *map(np.array, state)


@primitive
def segmented_gradients(*values: Array, segments: Segments) -> tuple[Array, ...]:
    """The backward pass: derivatives of inputs (None unless wanted), state and weights."""
    count = segments.state_count
    (g, *d_state), (inputs, *leaves) = values[: count + 1], values[count + 1 :]
    d_inputs = np.empty_like(inputs) if segments.wanted[0] else None
    d_weights = [np.zeros_like(w) for w in leaves[count:]]
    for n in reversed(range(len(segments.borders))):
        given = [segments.cut(inputs, n), *segments.before[n], *leaves[count:]]
        pull = pull_back(segments.function(n), given, segments.wanted)
        dx, *d = pull([segments.share(g, n), *d_state])
        d_state = d[:count]
        _add(d_weights, d[count:])
        if d_inputs is not None:
            d_inputs[slice(*segments.borders[n])] = dx
    return d_inputs, *d_state, *d_weights


@primitive
def segmented_tangents(*values: Array, segments: Segments) -> tuple[Array, ...]:
    """How the results of `segmented` move; `values` are the directions of its arguments, then these."""
    count, half = segments.state_count, len(values) // 2
    directions, (inputs, *leaves) = values[:half], values[half:]
    segments.directions, segments.r_before = directions, []
    r_state = filled(directions[1 : count + 1], tuple(leaves[:count]))

    def outputs() -> Any:
        for n, before in enumerate(segments.before):
            segments.r_before.append(list(r_state))
            given = [segments.cut(inputs, n), *before, *leaves[count:]]
            moving = [segments.cut(directions[0], n), *r_state, *directions[count + 1 :]]
            _, (found, *r_state[:]) = push_along(segments.function(n), given, moving)
            yield found

    whole = segments.collect(outputs())
    return whole, *map(np.array, r_state)


@primitive
def segmented_gradient_tangents(*values: Array, segments: Segments) -> tuple[Array, ...]:
    """How the results of `segmented_gradients` move; `values` as `minilstm.second.pairs.register_pair` says."""
    count, half = segments.state_count, len(values) // 2
    (g, *d_state), given = values[half : half + count + 1], values[half + count + 1 :]
    r_g, *rd_state = filled(values[: count + 1], (g, *d_state))
    directions = values[count + 1 : half]
    if segments.directions is None or any(a is not b for a, b in zip(segments.directions, directions, strict=True)):
        segmented_tangents(*directions, *given, segments=segments)
    inputs, weights = given[0], given[count + 1 :]
    rd_inputs = np.empty_like(inputs) if segments.wanted[0] else None
    rd_weights = [np.zeros_like(w) for w in weights]
    for n in reversed(range(len(segments.borders))):
        x = [segments.cut(inputs, n), *segments.before[n], *weights]
        rx = [segments.cut(directions[0], n), *segments.r_before[n], *directions[count + 1 :]]

        def gradients(both: list[Array], n: int = n, size: int = len(x)) -> list[Array]:
            pulled = pull_back(segments.function(n), both[:size], segments.wanted)(both[size:])
            return pulled if segments.wanted[0] else pulled[1:]

        cotangents = [segments.share(g, n), *d_state]
        moved = [segments.share(r_g, n), *rd_state]
        d, rd = push_along(gradients, [*x, *cotangents], [*rx, *moved])
        if rd_inputs is not None:
            rd_inputs[slice(*segments.borders[n])] = rd[0]
            d, rd = d[1:], rd[1:]
        d_state, rd_state = d[:count], rd[:count]
        _add(rd_weights, rd[count:])
    return rd_inputs, *rd_state, *rd_weights


def _add(totals: list[Array], shares: list[Array]) -> None:
    for total, share in zip(totals, shares, strict=True):
        total += share


register_pair(segmented, segmented_gradients, segmented_tangents, segmented_gradient_tangents)
