"""The largest eigenvalues of a symmetric matrix that is known by its products with vectors alone.

A Hessian has as many rows as a model has parameters, too many to write down; `minilstm.hessian_vector_product` gives
its products. `lanczos` is scipy's, and takes a few dozen of them. `power_iteration` needs NumPy alone and more
products. Both take "largest" with the sign: 1 is larger than -5.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from minilstm.params import tree_leaves, tree_unflatten

Product = Callable[[np.ndarray], np.ndarray]  # [size] -> [size]
Found = tuple[np.ndarray, np.ndarray]  # eigenvalues [count], the largest first; eigenvectors [size, count], of length 1

TOLERANCE = 1e-3  # the largest |H v - value v| over the largest absolute eigenvalue; the error of a value is its square
SWEEPS = 5000  # of the power iteration, at most
GUARD = 3  # vectors beyond those that are wanted: the more, the fewer sweeps


def flat(tree: Any) -> np.ndarray:
    """All arrays of a tree as one vector ``[size]``."""
    return np.concatenate([np.ravel(leaf) for leaf in tree_leaves(tree)])


def as_tree(vector: np.ndarray, like: Any) -> Any:
    """The vector cut into arrays with the structure and the shapes of the tree `like`."""
    leaves = tree_leaves(like)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    pieces = np.split(vector, ends[:-1])
    return tree_unflatten(like, iter(piece.reshape(np.shape(leaf)) for piece, leaf in zip(pieces, leaves, strict=True)))


def method() -> str:
    """The name of what `largest` uses: "lanczos" if scipy is installed, else "power_iteration"."""
    return "lanczos" if importlib.util.find_spec("scipy") else "power_iteration"


def largest(product: Product, size: int, count: int, seed: int = 0) -> Found:
    """The `count` largest eigenvalues and their vectors, by `lanczos` if scipy is installed, else `power_iteration`.

    Raises
    ------
    ValueError
        If `count` is not in 1 .. size - 1.
    FloatingPointError
        If a product is not finite.
    RuntimeError
        If they are not found to `TOLERANCE`.
    """
    return (lanczos if method() == "lanczos" else power_iteration)(product, size, count, seed)


def lanczos(product: Product, size: int, count: int, seed: int = 0) -> Found:
    """As `largest`, by ``scipy.sparse.linalg.eigsh``."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    _check(size, count)
    matrix = LinearOperator((size, size), matvec=lambda v: _finite(product(np.ravel(v))), dtype=float)
    start = np.random.default_rng(seed).standard_normal(size)
    try:
        values, vectors = eigsh(matrix, k=count, which="LA", v0=start, tol=TOLERANCE)
    except ArpackNoConvergence as error:
        raise RuntimeError(f"lanczos: {error}") from error
    return values[::-1], vectors[:, ::-1]


def power_iteration(product: Product, size: int, count: int, seed: int = 0) -> Found:
    """As `largest`, by multiplying vectors again and again.

    What is multiplied by H + shift grows most along the eigenvectors of the largest eigenvalues, if the shift makes all
    eigenvalues positive. Several vectors at a time find several eigenvalues: they are made orthogonal after each
    product, and the small matrix of H between them is solved (Rayleigh and Ritz).
    """
    _check(size, count)
    rng = np.random.default_rng(seed)
    radius = _radius(product, rng.standard_normal(size))
    smallest = radius - _radius(lambda v: radius * v - product(v), rng.standard_normal(size))
    shift = 1.1 * max(0.0, -smallest) + 0.05 * radius
    basis = np.linalg.qr(rng.standard_normal((size, min(size, count + GUARD))))[0]
    error = np.inf
    for _ in range(SWEEPS):
        products = np.stack([_finite(product(vector)) for vector in basis.T], axis=1)
        values, mixtures = np.linalg.eigh(basis.T @ products)  # the smallest first
        values, mixtures = values[::-1], mixtures[:, ::-1]
        vectors, products = basis @ mixtures, products @ mixtures
        error = np.linalg.norm((products - vectors * values)[:, :count], axis=0).max()
        if error <= TOLERANCE * radius:
            return values[:count], vectors[:, :count]
        basis = np.linalg.qr(products + shift * vectors)[0]
    raise RuntimeError(f"power_iteration: after {SWEEPS} sweeps |H v - value v| is still {error:.2g}")


def _radius(product: Product, vector: np.ndarray) -> float:
    """The largest absolute eigenvalue, roughly: how much one more product stretches the vector."""
    before, now = 0.0, np.inf
    for _ in range(SWEEPS):
        if abs(now - before) <= 1e-2 * now < np.inf:
            break
        vector = _finite(product(vector / np.linalg.norm(vector)))
        before, now = now, float(np.linalg.norm(vector))
        if now == 0:
            break
    return now


def _check(size: int, count: int) -> None:
    if not 1 <= count < size:
        raise ValueError(f"largest: count must be in 1 .. {size - 1}, as the matrix has {size} rows, got {count}")


def _finite(vector: np.ndarray) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise FloatingPointError("largest: product returned a number that is not finite")
    return vector
