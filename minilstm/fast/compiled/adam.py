"""Adam's update in one loop instead of twelve NumPy calls, each of which reads and writes the cache."""

from __future__ import annotations

import numpy as np

from .functions import EXACT, compiled


@compiled(EXACT)
def compiled_adam(w, g, m, v, new_w, beta1, rest1, beta2, rest2, epsilon, rate):  # type: ignore[no-untyped-def]
    """The twin of `minilstm.fast.adam.numpy_adam`, with the same bits: each operation is rounded as in NumPy."""
    f = np.float32
    beta1, rest1, beta2, rest2 = f(beta1), f(rest1), f(beta2), f(rest2)
    epsilon, rate = f(epsilon), f(rate)
    for e in range(w.shape[0]):
        m[e] = m[e] * beta1 + g[e] * rest1
        v[e] = v[e] * beta2 + g[e] * g[e] * rest2
        new_w[e] = w[e] - m[e] * rate / (np.sqrt(v[e]) + epsilon)
