"""How far one number of a float32 computation may be off: a bound to first order, computed in float64.

Every operation rounds its result. To first order a result F is then off by the sum, over all operations k and all their
entries, of ``dF/dy_k * e_k``, where y_k is the operation's result and e_k its own rounding. So

    |error of F|  <=  sum |dF/dy_k| * E_k,       with u = 2**-24 and E_k at most

    x + y, x * y, x / y     u |y_k|
    x @ y                   n u (|x| @ |y|)      sums of n products, added in any order
    sum(x)                  n u sum(|x|)
    exp, tanh               8 u |y_k|            no library rounds them exactly: of 3 million numbers the worst were off
                                                 by 5.8 u (tanh of TensorFlow 2.21) and 3.3 u (exp of NumPy 2)

Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, chapter 3. The terms of second order are
left out: they are about as large as the square of the bound. The derivatives dF/dy_k come from autograd:
`LSTMCell.step` and `bptt.step_back` run on `Rounded` arrays, which add a variable of value 0 to the result of every
operation. The bound holds for every program that does these operations, so two programs may be twice as far apart.
"""

from unittest import mock

import autograd.numpy as anp
import numpy as np
from autograd.tracer import getval
from numpy.lib.mixins import NDArrayOperatorsMixin

from minilstm import LSTMState, bptt, value_and_grad
from minilstm.params import flatten_names, tree_map

U = 2.0**-24


class Rounded(NDArrayOperatorsMixin):
    """An array of float64. `round_off(y, E)` gets each result y and its E, and returns y, with a variable added."""

    def __init__(self, value, round_off):
        self.value, self.round_off = value, round_off
        self.shape, self.dtype, self.ndim = value.shape, value.dtype, value.ndim

    def __array_ufunc__(self, ufunc, method, *args, **options):
        assert (method, options) == ("__call__", {})
        return self._apply(ufunc, args, {})

    def __array_function__(self, function, types, args, options):
        return self._apply(function, args, options)

    def _apply(self, function, args, options):
        args = [[plain(part) for part in arg] if isinstance(arg, (list, tuple)) else plain(arg) for arg in args]
        value = getattr(anp, function.__name__)(*args, **options)
        if function in EXACT:
            return [self._like(part) for part in value] if function is np.split else self._like(value)
        x, y, exact = getval(args[0]), getval(args[-1]), np.abs(getval(value))
        if function is np.matmul:
            exact = x.shape[-1] * np.abs(x) @ np.abs(y)
        elif function is np.sum:
            exact = x.shape[options["axis"]] * np.abs(x).sum(**options)
        return self._like(self.round_off(value, U * exact * (8 if function in (np.exp, np.tanh) else 1)))

    def _like(self, value):
        return value if np.asarray(getval(value)).dtype == bool else Rounded(value, self.round_off)

    def __getitem__(self, key):
        return self._like(self.value[key])

    @property
    def T(self):
        return self._like(self.value.T)

    def view(self, _):
        """Itself: autograd views what it joins as an array."""
        return self


def plain(x):
    return x.value if isinstance(x, Rounded) else x


EXACT = {np.negative, np.absolute, np.greater_equal, np.where, np.concatenate, np.split, np.ones_like}


@mock.patch("minilstm.gates.as_array", lambda value, where: value)  # a Rounded array is none that users may give
def results(network, cotangents, round_off):
    """By name, as Rounded arrays: the outputs ``[batch, time, features]``, the final c and h, and the gradients of
    ``sum(results * cotangents)`` with respect to the weights and to x, c and h.
    """
    given = (network.params, network.inputs, network.state, *cotangents)
    given = tree_map(lambda a: Rounded(np.asarray(a, np.float64), round_off), given)
    params, x, state, d_outputs, dc, dh = given
    batch, time, _ = x.shape
    lengths = np.full(batch, time) if network.lengths is None else network.lengths
    live = [bptt.live_rows(t, lengths) for t in range(time)]
    before, steps, outputs, d_inputs, d_weights = [], [], [None] * time, [None] * time, {}
    for t in range(time):
        before.append(state)
        steps.append(network.cell.step(params, x[:, t], *state))
        outputs[t] = np.where(live[t], steps[t].h, 0.0)
        state = LSTMState(np.where(live[t], steps[t].c, state.c), np.where(live[t], steps[t].h, state.h))
    final = state
    for t in reversed(range(time)):
        dc_after, dh_after = dc, dh
        dc, dh = np.where(live[t], dc, 0.0), np.where(live[t], dh + d_outputs[:, t], 0.0)
        back = bptt.step_back(network.cell, params, x[:, t], before[t], steps[t], dc, dh)
        d_inputs[t] = np.where(live[t], back.dx_t, 0.0)
        for name, share in back.weights.items():
            d_weights[name] = d_weights[name] + share if name in d_weights else share
        dc, dh = np.where(live[t], back.dc_prev, dc_after), np.where(live[t], back.dh_prev, dh_after)
    stacked = {"outputs": outputs, "gradient of x": d_inputs}
    stacked = {name: anp.stack([part.value for part in parts], axis=1) for name, parts in stacked.items()}
    named = {"c": final.c, "h": final.h, "gradient of c": dc, "gradient of h": dh}
    named |= flatten_names({"rnn": {network.cell.name: d_weights}})
    return stacked | {name: array.value for name, array in named.items()}


def float32_bound(network, cotangents, name, place):
    """The bound on the error of entry `place` of the result `name`."""
    bounds = []

    def record(value, bound):
        bounds.append(bound)
        return value

    results(network, cotangents, record)

    def entry(variables):
        rest = iter(variables)
        return results(network, cotangents, lambda value, _: value + next(rest))[name][place]

    _, sensitivities = value_and_grad(entry)([np.zeros(bound.shape) for bound in bounds])
    return sum(float(np.sum(np.abs(s) * bound)) for s, bound in zip(sensitivities, bounds, strict=True))
