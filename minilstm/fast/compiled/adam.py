"""Adam's formulas in one loop: twelve calls of NumPy, and the ways to the cache and back between them, become one."""

from __future__ import annotations

import numpy as np

from .functions import EXACT, compiled


@compiled(EXACT)
def adam(w, g, m, v, new_w, beta1, rest1, beta2, rest2, epsilon, rate):  # type: ignore[no-untyped-def]
    """As `minilstm.optimizers.adam`, which also needs room, and the same bits: each operation rounded as by NumPy."""
    f = np.float32
    beta1, rest1, beta2, rest2 = f(beta1), f(rest1), f(beta2), f(rest2)
    epsilon, rate = f(epsilon), f(rate)
    for e in range(w.shape[0]):
        m[e] = m[e] * beta1 + g[e] * rest1
        v[e] = v[e] * beta2 + g[e] * g[e] * rest2
        new_w[e] = w[e] - m[e] * rate / (np.sqrt(v[e]) + epsilon)
