"""A GRU or a plain RNN over a whole sequence, fast. The readable twin is `minilstm.variants_bptt`.

This module registers the passes of `minilstm.fast.variant_workspace` with autograd. Past the end of a sequence the
carried h is multiplied by 0, so that nothing grows there; its final h is read where it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums
from autograd.tracer import isbox

from ..params import get_path, unflatten_names
from ..primitives import filled, primitive, pulled_by_trace, result_of
from ..variants import GRUCell
from ..variants_bptt import derivation_of
from . import compiled
from .loans import Loan
from .padding import Padding, padding_for
from .variant_workspace import GRUWorkspace, ResetAfterWorkspace, RNNWorkspace

Array = Any


class VariantLoan(Loan):
    """The loan of one pass, and what the pass is given besides arrays with derivatives: the arguments of
    `minilstm.variants_bptt.sequence`.
    """

    def __init__(
        self, cell: Any, sequence_length: Any, h_masks: Array | None, traced: Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        self.cell, self.h_masks, self.traced, self.lengths = cell, h_masks, traced, sequence_length
        self.names = derivation_of(cell).weights  # type: ignore[union-attr]
        self.padding: Padding | None = None

    def workspace_for(self, inputs: Array) -> Any:
        """Borrow a workspace for a pass over inputs ``[time, batch, input_dim]``."""
        masks = self.h_masks
        self.padding = padding_for(self.lengths, len(inputs))
        if self.padding is not None:
            live = ~self.padding.past[..., None]
            masks = live if masks is None else masks * live
        units, activation, is_gru = self.cell.units, self.cell.activation, isinstance(self.cell, GRUCell)
        shape, resets_after = (*inputs.shape, units), getattr(self.cell, "reset_after", False)
        size = 3 * units * (inputs.shape[2] + units)
        if is_gru and not resets_after and activation == "tanh" and compiled.can_compile(inputs.dtype, size):
            from .compiled.gru import CompiledGRU

            workspace = self.take(CompiledGRU, *shape, masks is not None)
        else:
            kind = ResetAfterWorkspace if resets_after else GRUWorkspace if is_gru else RNNWorkspace
            workspace = self.take(kind, *shape, inputs.dtype, activation, masks is not None)
        if masks is not None:
            workspace.set_masks(masks)
        return workspace


def sequence(
    cell: Any, params: dict[str, Any], inputs: Array, h: Array,
    sequence_length: Array | None, h_masks: Array | None, traced: Callable[..., Any],
) -> tuple[Array, Array]:  # fmt: skip
    """The fast twin of `minilstm.variants_bptt.sequence`, with its arguments and results."""
    loan = VariantLoan(cell, sequence_length, h_masks, traced)
    if len(inputs) == 1 and sequence_length is None and h_masks is None and not isbox(inputs):
        weights = [get_path(params, name) for name in loan.names]
        if not any(map(isbox, (h, *weights))):  # a single step, as `generate` takes it: a pass would cost more
            output = cell.step(params, inputs[0], h).h
            return output[None].copy(), output
    results = fast_h_sequence(inputs, h, *(get_path(params, name) for name in loan.names), loan=loan)
    return result_of(results, 0), result_of(results, 1)


@primitive
def fast_h_sequence(inputs: Array, h: Array, *weights: Array, loan: VariantLoan) -> tuple[Array, Array]:
    """The forward pass: outputs ``[time, batch, units]`` and final h."""
    workspace, padding = loan.workspace_for(inputs), loan.padding
    if padding is not None:
        inputs = padding.without(inputs)
    outputs, h_end = workspace.forward(inputs, h, *weights)
    if padding is not None:
        h_end = padding.final_h(outputs, h, loan.h_masks)
        outputs[padding.past] = 0
    return outputs, h_end


def fast_h_backward(d_outputs: Array, dh: Array, *, loan: VariantLoan, wants_inputs: bool) -> list[Array | None]:
    """The backward pass: derivatives of inputs (None unless wanted), of h before the first step, and of the weights."""
    padding, d_h_end = loan.padding, dh
    if padding is not None:
        d_outputs, dh = padding.d_outputs(d_outputs, dh, loan.h_masks), np.zeros_like(dh)
    d_inputs, dh, *weights = loan.workspace.backward(d_outputs, dh, wants_inputs)
    return [d_inputs, dh if padding is None else np.where(padding.empty, d_h_end, dh), *weights]


def every_dz(cell: Any, params: dict[str, Any], inputs: Array, h: Any, sequence_length: Any, cotangents: Any) -> Array:
    """The fast twin of `minilstm.variants_bptt.every_dz`."""
    loan = VariantLoan(cell, sequence_length, None)
    results = fast_h_sequence(inputs, h, *(get_path(params, name) for name in loan.names), loan=loan)
    fast_h_backward(*cotangents(results), loan=loan, wants_inputs=False)
    return loan.workspace.dz()


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    loan = kwargs["loan"]

    def again(inputs: Array, h: Array, *weights: Array) -> Any:
        return loan.traced(unflatten_names(dict(zip(loan.names, weights, strict=True))), inputs, h)

    def pull(g: tuple[Array, Array]) -> list[Array]:
        if any(map(isbox, (*g, *args))):  # a derivative of this derivative is wanted
            return pulled_by_trace(again, args, argnums, g)
        grads = fast_h_backward(*filled(g, ans), loan=loan, wants_inputs=0 in argnums)
        return [grads[argnum] for argnum in argnums]

    return pull


defvjp_argnums(fast_h_sequence, _vjps)
