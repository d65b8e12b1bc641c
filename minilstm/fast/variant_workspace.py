"""A pass of a GRU or a plain RNN over a sequence in NumPy. The readable twin is `minilstm.variants_bptt`.

As in `minilstm.fast.workspace`, features come first: a block of a step is ``[units, batch]``. The inputs' share of all
pre-activations, and the bias, is one call for all steps; the loops add the products with h. A training step of a GRU
takes 0.27 of the time of autograd's trace at 50 steps, batch 32, 64 inputs and 128 units, and 0.1 with 1 input and 32.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .activations import FAST_ACTIVATIONS, SMALL, sigmoid_of_negative
from .loops import CACHE_BYTES
from .memory import aligned, copy_rows, matrix, recycled
from .workspace import unbuffered

Array = Any


class VariantWorkspace:
    """The arrays of one pass, and what the passes of all cells with the state h have in common.

    A cell has groups of weights, each a kernel and a bias. The kernel's first rows multiply x, the others multiply what
    `recurrent_inputs` gives.

    Parameters
    ----------
    time, batch, input_dim, units : int
    dtype : data type of all arrays
    activation : str
    has_masks : bool
        Whether the h that is carried to the next step has factors.
    """

    groups: tuple[int, ...]  # blocks of `units` rows of z in each group
    negated = 0  # how many blocks of z are sigmoids, which come first: their z is negative, for exp(-z)

    def __init__(
        self, time: int, batch: int, input_dim: int, units: int, dtype: Any, activation: str, has_masks: bool
    ) -> None:
        self.units, self.input_dim, blocks = units, input_dim, sum(self.groups)
        self.activation = FAST_ACTIVATIONS[activation]
        self.x = aligned((time, input_dim + 1, batch), dtype)  # [x_t; 1]
        self.x[:, -1] = 1
        self.h = aligned((time + 1, units, batch), dtype)
        self.outputs = aligned((time, units, batch), dtype) if has_masks else self.h[1:]
        self.z = aligned((time, blocks * units, batch), dtype)  # in the end the blocks' values; after `backward` dz
        self.blocks = self.z.reshape(time, blocks, units * batch)
        self.h_masks: Array | None = None
        self.scale = np.repeat(np.array([-1] * self.negated + [1] * (blocks - self.negated), dtype), units)
        # For products over all steps at once.
        self.by_feature = aligned((input_dim + 1 + len(self.groups) * units, time, batch), dtype)
        self.dz_by_feature = aligned((blocks * units, time, batch), dtype)
        self.dh, self.next_dh = aligned((units, batch), dtype), aligned((units, batch), dtype)
        self.has_dz = False  # whether a backward pass has overwritten the values with dz

    def recurrent_inputs(self) -> list[Array]:
        """For each group what its kernel's other rows multiply, ``[time, units, batch]``."""
        return [self.h[:-1]]

    def taken_apart(self, *weights: Array) -> tuple[Array, list[Array]]:
        """The matrix of ``[x_t; 1]``, ``[input_dim + 1, blocks * units]``, and each group's recurrent matrix."""
        first, kernels, biases = self.input_dim, weights[::2], weights[1::2]
        of_inputs = [np.concatenate((kernel[:first], bias[None])) for kernel, bias in zip(kernels, biases, strict=True)]
        return np.concatenate(of_inputs, axis=1), [np.ascontiguousarray(kernel[first:]) for kernel in kernels]

    def set_masks(self, h_masks: Array) -> None:
        """Factors ``[time, batch, units or 1]`` for the carried h of the next `forward`."""
        self.h_masks = np.ascontiguousarray(h_masks.transpose(0, 2, 1), self.h.dtype)

    def forward(self, inputs: Array, h: Array, *weights: Array) -> tuple[Array, Array]:
        """Outputs ``[time, batch, units]`` and final h, from ``inputs [time, batch, input_dim]``; `weights` are the
        kernel and bias of each group.
        """
        np.copyto(self.x[:, : self.input_dim], inputs.transpose(0, 2, 1))
        np.copyto(self.h[0], h.T)
        of_inputs, self.recurrent = self.taken_apart(*weights)
        self.from_inputs = np.ascontiguousarray((of_inputs * self.scale).T)
        ends = np.cumsum([0, *self.groups]) * self.units
        scales = [self.scale[start:stop] for start, stop in itertools.pairwise(ends)]
        self.factors = [np.ascontiguousarray((k * s).T) for k, s in zip(self.recurrent, scales, strict=True)]
        self._forward()
        outputs = recycled((len(h), len(inputs), self.units), inputs.dtype)
        np.copyto(outputs.transpose(1, 2, 0), self.outputs)
        return outputs.transpose(1, 0, 2), self.h[-1].T.copy()

    def _forward(self) -> None:
        np.matmul(self.from_inputs, self.x, out=self.z)
        self.loop()
        self.has_dz = False

    def backward(self, d_outputs: Array, dh: Array, wants_inputs: bool) -> list[Array | None]:
        """Derivatives of inputs (None unless wanted) and of h before the first step, and of all weights."""
        if self.has_dz:  # a second backward pass after the same forward pass
            self._forward()
        np.copyto(self.dh, dh.T)
        with unbuffered():
            dh = self.loop_back(d_outputs)
        self.has_dz = True
        time, blocks, batch = self.z.shape
        first = self.input_dim + 1
        copy_rows(self.dz_by_feature, self.z.transpose(1, 0, 2))
        copy_rows(self.by_feature[:first], self.x.transpose(1, 0, 2))
        dz, features = self.dz_by_feature.reshape(blocks, -1), self.by_feature.reshape(len(self.by_feature), -1)
        weights = self.d_weights(np.matmul(features[:first], dz.T), features, dz)
        d_inputs = None
        if wants_inputs:
            factor = np.ascontiguousarray((self.from_inputs[:, :-1] / self.scale[:, None]).T)
            d_inputs = recycled((time, self.input_dim, batch), dz.dtype)
            d_inputs = np.matmul(factor, self.z, out=d_inputs).transpose(0, 2, 1)
        return [d_inputs, dh.T.copy(), *weights]

    def d_weights(self, of_inputs: Array, features: Array, dz: Array) -> list[Array]:
        """The derivatives of the weights. `of_inputs` is that of the matrix of ``[x_t; 1]``; `features` ``[_, time *
        batch]``, with x and 1 in its first rows, and `dz` ``[blocks * units, time * batch]`` are those of all steps.
        """
        weights: list[Array] = []
        first, units, start = self.input_dim, self.units, 0
        for n, (size, recurrent) in enumerate(zip(self.groups, self.recurrent_inputs(), strict=True)):
            rows = slice(first + 1 + n * units, first + 1 + (n + 1) * units)
            columns = slice(start * units, (start + size) * units)
            copy_rows(self.by_feature[rows], recurrent.transpose(1, 0, 2))
            kernel = recycled((first + units, size * units), dz.dtype)
            kernel[:first] = of_inputs[:-1, columns]
            np.matmul(features[rows], dz[columns].T, out=kernel[first:])
            weights += [kernel, of_inputs[-1, columns].copy()]
            start += size
        return weights

    def dz(self) -> Array:
        """The dz of the last backward pass, ``[time, batch, blocks * units]``."""
        return self.z.transpose(0, 2, 1).copy()

    def carry(self, t: int) -> None:
        """The h for the next step from the output of step t, if it has factors."""
        if self.h_masks is not None:
            np.multiply(self.outputs[t], self.h_masks[t], self.h[t + 1])

    def add_output(self, t: int, d_output: Array) -> None:
        """From dh with respect to the carried h to dh with respect to h_t."""
        if self.h_masks is not None:
            np.multiply(self.dh, self.h_masks[t], self.dh)
        np.add(self.dh, d_output.T, self.dh)

    def loop(self) -> None:
        """From the inputs' share of z to outputs and h of all steps."""
        raise NotImplementedError

    def loop_back(self, d_outputs: Array) -> Array:
        """Overwrite the values by dz, the last step first; return dh before the first step."""
        raise NotImplementedError


class RNNWorkspace(VariantWorkspace):
    """The pass of a plain RNN."""

    groups = (1,)

    def loop(self) -> None:
        """As `VariantWorkspace.loop`."""
        (factor,), product, act = self.factors, self.dh, self.activation.function
        for t, z in enumerate(self.z):
            np.matmul(factor, self.h[t], out=product)
            np.add(z, product, z)
            act(z, self.outputs[t])
            self.carry(t)

    def loop_back(self, d_outputs: Array) -> Array:
        """As `VariantWorkspace.loop_back`."""
        (recurrent,), slope = self.recurrent, self.activation.times_slope
        for t in reversed(range(len(self.z))):
            self.add_output(t, d_outputs[t])
            np.multiply(self.dh, self.outputs[t], self.next_dh)
            slope(self.dh, self.next_dh, self.outputs[t], self.z[t])
            np.matmul(recurrent, self.z[t], out=self.dh)
        return self.dh


class GRUWorkspace(VariantWorkspace):
    """The pass of a GRU. Blocks of a step are r, u and k.

    All factors of dh and dq are known before the backward loop. They are computed for as many steps at once as fit in
    the cache, as `minilstm.fast.loops` does it for an LSTM.
    """

    groups: tuple[int, ...] = (2, 1)
    negated = 2

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any, *options: Any) -> None:
        super().__init__(time, batch, input_dim, units, dtype, *options)
        entries = units * batch
        self.q = aligned((time, units, batch), dtype)  # r times the h before
        self.from_h, self.spare = aligned((self.groups[0] * units, batch), dtype), aligned((2, units, batch), dtype)
        self.flat = [x.reshape(-1) for x in (self.dh, self.next_dh)]
        self.matrices = [matrix(x) for x in (self.dh, self.next_dh)]
        shape = (2 * entries,) if 2 * entries <= SMALL else ()
        self.one = np.ones(shape, dtype)  # small: a constant of the shape of both gates is fastest
        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * entries * np.dtype(dtype).itemsize))))
        self.for_dh = aligned((3, self.chunk, entries), dtype)  # factors of dz_r, dz_u and dz_k
        self.scratch = aligned((2, self.chunk, entries), dtype)
        flat_h, flat_q, flat_outputs = (x.reshape(time, -1) for x in (self.h[:-1], self.q, self.outputs))
        self.views, self.reset_views = [], []  # of every step
        for t, (r, u, k) in enumerate(self.blocks):
            z, gates = matrix(self.z[t, : 2 * units]), self.blocks[t, :2].reshape(-1)
            self.views.append((matrix(self.h[t]), flat_h[t], z, gates, u, k, flat_outputs[t]))
            self.reset_views.append((r, flat_h[t], k, matrix(self.z[t, 2 * units :]), flat_q[t], matrix(self.q[t])))

    def taken_apart(self, *weights: Array) -> tuple[Array, list[Array]]:
        """As `VariantWorkspace.taken_apart`."""
        of_inputs, recurrent = super().taken_apart(*weights)
        self.of_gates, self.of_q = recurrent
        return of_inputs, recurrent

    def recurrent_inputs(self) -> list[Array]:
        """As `VariantWorkspace.recurrent_inputs`: the candidate's kernel multiplies q."""
        return [self.h[:-1], self.q]

    def loop(self) -> None:
        """As `VariantWorkspace.loop`."""
        product, multiply, add, act, one = np.matmul, np.multiply, np.add, self.activation.function, self.one
        factor, from_h, from_gates = self.factors[0], matrix(self.from_h), matrix(self.from_h[: 2 * self.units])
        a, b = self.spare.reshape(2, -1)
        for t, (h, flat_h, z, gates, u, k, output) in enumerate(self.views):
            product(factor, h, from_h)
            add(z, from_gates, z)
            sigmoid_of_negative(gates, one)
            self.complete_z_k(*self.reset_views[t])
            act(k, k)
            multiply(u, flat_h, a)
            multiply(u, k, b)
            np.subtract(k, b, b)
            add(a, b, output)
            if self.h_masks is not None:
                self.carry(t)

    def complete_z_k(self, r: Array, h: Array, k: Array, z_k: Array, q: Array, q_matrix: Array) -> None:
        """Compute q of a step, and add what it gives to the inputs' share of z_k; k and z_k are the same memory."""
        from_q, _ = self.matrices
        np.multiply(r, h, q)
        np.matmul(self.factors[1], q_matrix, from_q)
        np.add(z_k, from_q, z_k)

    def loop_back(self, d_outputs: Array) -> Array:
        """As `VariantWorkspace.loop_back`."""
        multiply, (dh, _) = np.multiply, self.flat
        (a, from_gates), from_gates_matrix = self.spare.reshape(2, -1), matrix(self.spare[1])
        for start in reversed(range(0, len(self.z), self.chunk)):
            self.compute(start, min(start + self.chunk, len(self.z)))
            for t in reversed(range(start, min(start + self.chunk, len(self.z)))):
                _, _, dz_gates, _, u, k, _ = self.views[t]
                for_r, for_u, for_k = self.for_dh[:, t - start]
                self.add_output(t, d_outputs[t])
                multiply(for_k, dh, k)
                multiply(dh, u, a)
                multiply(for_u, dh, u)
                self.undo_reset(for_r, a, *self.reset_views[t])
                np.matmul(self.of_gates, dz_gates, from_gates_matrix)
                np.add(a, from_gates, dh)
        return self.dh

    def undo_reset(
        self, for_r: Array, a: Array, r: Array, h: Array, k: Array, dz_k: Array, q: Array, q_matrix: Array
    ) -> None:
        """From dz_k of a step, which has overwritten k, to dz_r, which overwrites r; add to `a` what q adds to dh."""
        (by_r, dq), (_, dq_matrix) = self.flat, self.matrices
        np.matmul(self.of_q, dz_k, dq_matrix)
        np.multiply(dq, r, by_r)
        np.add(a, by_r, a)
        np.multiply(for_r, dq, r)

    def compute(self, start: int, stop: int) -> None:
        """The factors of the steps from `start` to before `stop`: with them dz_u and dz_k are products with dh, and
        dz_r is one with dq.
        """
        r, u, k = (self.blocks[start:stop, block] for block in range(3))
        h, q = (x[start:stop].reshape(stop - start, -1) for x in (self.h, self.q))
        (for_r, for_u, for_k), (scratch, d) = self.for_dh[:, : stop - start], self.scratch[:, : stop - start]
        q = self.reset(q, r, scratch)
        np.multiply(q, r, for_r)  # h r (1 - r) = q - q r
        np.subtract(q, for_r, for_r)
        np.multiply(u, u, scratch)  # (h - k) u (1 - u)
        np.subtract(u, scratch, scratch)
        np.subtract(h, k, for_u)
        np.multiply(for_u, scratch, for_u)
        np.subtract(1, u, d)  # (1 - u) activation'(k)
        np.multiply(d, k, scratch)
        self.activation.times_slope(d, scratch, k, for_k)

    @staticmethod
    def reset(q: Array, r: Array, out: Array) -> Array:
        """What r has multiplied, times r; for a GRU that is q."""
        return q


class ResetAfterWorkspace(GRUWorkspace):
    """The pass of a GRU with `reset_after`; dz is da, and dq overwrites q. One product gives b_r, b_u and q."""

    groups = (3,)

    def taken_apart(self, *weights: Array) -> tuple[Array, list[Array]]:
        """As `VariantWorkspace.taken_apart`. The recurrent biases of r and u are added to the others."""
        kernel, recurrent, bias, recurrent_bias = weights
        gates, bias = 2 * self.units, bias.copy()
        bias[:gates] += recurrent_bias[:gates]
        self.q_bias = np.repeat(recurrent_bias[gates:], self.h.shape[2])
        self.of_gates, self.of_q = (np.ascontiguousarray(part) for part in np.split(recurrent, [gates], axis=1))
        return np.concatenate((kernel, bias[None])), [recurrent]

    def complete_z_k(self, r: Array, h: Array, k: Array, z_k: Array, q: Array, q_matrix: Array) -> None:
        """As `GRUWorkspace.complete_z_k`; the product with h is there already."""
        a = self.spare[0].reshape(-1)
        np.add(self.from_h[2 * self.units :].reshape(-1), self.q_bias, q)
        np.multiply(r, q, a)
        np.add(k, a, k)

    def undo_reset(
        self, for_r: Array, a: Array, r: Array, h: Array, k: Array, dz_k: Array, q: Array, q_matrix: Array
    ) -> None:
        """As `GRUWorkspace.undo_reset`; dq overwrites q."""
        np.multiply(k, r, q)
        np.multiply(for_r, k, r)
        np.matmul(self.of_q, q_matrix, self.matrices[1])
        np.add(a, self.flat[1], a)

    @staticmethod
    def reset(q: Array, r: Array, out: Array) -> Array:
        """As `GRUWorkspace.reset`."""
        return np.multiply(q, r, out)

    def d_weights(self, of_inputs: Array, features: Array, dz: Array) -> list[Array]:
        """As `VariantWorkspace.d_weights`; the recurrent matrix saw dq in the place of da_k."""
        rows, of_q = slice(self.input_dim + 1, None), slice(2 * self.units, None)
        copy_rows(self.by_feature[rows], self.h[:-1].transpose(1, 0, 2))
        copy_rows(self.dz_by_feature[of_q], self.q.transpose(1, 0, 2))
        recurrent_bias = np.concatenate((of_inputs[-1, : 2 * self.units], dz[of_q].sum(axis=1)))
        return [of_inputs[:-1].copy(), features[rows] @ dz.T, of_inputs[-1].copy(), recurrent_bias]
