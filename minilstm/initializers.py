"""Initial values of weights.

An initializer is a small frozen object, called as ``initializer(rng, shape, dtype)``. A cell or layer accepts its name
(``"glorot_uniform"``), the object (``Uniform(0.1)``), an array of the right shape, or any function with that signature.
A function without a registered name works, but a model that holds one cannot be saved.

Numbers are drawn in float64 and then rounded, so a float32 and a float64 model start with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .arguments import check_number
from .arrays import as_array
from .gates import GATES, pack_gates
from .options import option as any_option

Initializer = Callable[[np.random.Generator, tuple[int, ...], Any], np.ndarray]


@dataclass(frozen=True)
class Zeros:
    """All 0. TensorFlow's default for biases."""

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)


@dataclass(frozen=True)
class Constant:
    """All `value`."""

    value: float = 0.0

    def __post_init__(self) -> None:
        _check(self, "value")

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.full(shape, _rounded(self.value, dtype, "Constant: value"))


@dataclass(frozen=True)
class Uniform:
    """Uniform in [-limit, limit). Zaremba et al. 2014 (arXiv 1409.2329) use 0.1, 0.05 and 0.04."""

    limit: float = 0.05

    def __post_init__(self) -> None:
        _check(self, "limit", least=0)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        _rounded(self.limit, dtype, "Uniform: limit")
        return rng.uniform(-self.limit, self.limit, shape).astype(dtype)


@dataclass(frozen=True)
class GlorotUniform:
    """Uniform in [-a, a) with a = sqrt(6 / (fan_in + fan_out)): TensorFlow's default for every kernel.

    The fans are the two sides of the whole matrix, also for an LSTM kernel, which holds four gates. For a vector, both
    are its length, as in TensorFlow. Source: Glorot and Bengio 2010.
    """

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        fan_in, fan_out = (shape[0], shape[-1]) if shape else (1, 1)
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape).astype(dtype)


@dataclass(frozen=True)
class Orthogonal:
    """A matrix with orthonormal rows or columns, whichever are fewer, times `gain`.

    Source: Saxe, McClelland and Ganguli 2014 (arXiv 1312.6120).
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "gain")

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"Orthogonal: shape must have two dimensions, got {shape}")
        rows, columns = shape
        q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
        q = q * np.sign(np.diag(r))  # makes the draw uniform over orthogonal matrices
        return _rounded(self.gain * (q if rows >= columns else q.T), dtype, "Orthogonal: gain")


@dataclass(frozen=True)
class Chrono:
    """Biases for an `LSTMCell` or `BasicLSTMCell` that must remember for up to `max_time` steps.

    For each unit, u is uniform in [1, max_time - 1). Its biases are f = log(u), so that it forgets over about u steps,
    i = -f, and 0 for the gates j and o. The cell adds its own ``forget_bias`` to f: set that to 0.

    Raises ValueError unless `max_time` is finite and above 2, and (when called) if the shape is not ``(4 * units,)``.
    Other cells and layers refuse it.
    Source: Tallec and Ollivier 2018 (arXiv 1804.11188).
    """

    max_time: float

    def __post_init__(self) -> None:
        _check(self, "max_time", above=2)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if len(shape) != 1 or shape[0] % len(GATES):
            raise ValueError(f"Chrono: shape must be (4 * units,), as an LSTM's bias has, got {shape}")
        f = np.log(rng.uniform(1, self.max_time - 1, shape[0] // len(GATES)))
        return pack_gates(i=-f, j=np.zeros_like(f), f=f, o=np.zeros_like(f)).astype(dtype)


def _check(initializer: Any, name: str, **bounds: Any) -> None:
    """Check a number of an initializer, whose fields are frozen."""
    value = check_number(getattr(initializer, name), name, type(initializer).__name__, **bounds)
    object.__setattr__(initializer, name, value)


def _rounded(values: Any, dtype: Any, where: str) -> np.ndarray:
    """Numbers as an array of a dtype; ValueError if one is too large for it."""
    with np.errstate(over="ignore"):
        array = np.asarray(values).astype(dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: every number must be finite in {np.dtype(dtype)}, got {values!r:.80}")
    return array


_REGISTRY: dict[str, type] = {
    "zeros": Zeros,
    "constant": Constant,
    "uniform": Uniform,
    "glorot_uniform": GlorotUniform,
    "orthogonal": Orthogonal,
    "chrono": Chrono,
}
_NAMES = {cls: name for name, cls in _REGISTRY.items()}


def get(spec: Any, argument: str = "initializer") -> Initializer:
    """Return the initializer for a name, ``{"name": ..., options}``, an array, or the function itself.

    Raises ValueError for an unknown name; `argument` is what the message calls it.
    """
    if isinstance(spec, type):
        raise ValueError(f"{argument}: wanted an object such as Uniform(0.1), got the class {spec.__name__}")
    if callable(spec):
        return spec
    options = dict(spec) if isinstance(spec, dict) else {"name": spec}
    name = options.pop("name", None)
    if isinstance(name, str):
        if name not in _REGISTRY:
            raise ValueError(f"{argument}: got {name!r}, wanted one of {sorted(_REGISTRY)} or a function")
        try:
            return _REGISTRY[name](**options)
        except TypeError as error:  # an option that it does not have, or one too few
            raise ValueError(f"{argument}: {name} with options {options}: {error}") from None
    if not (np.isscalar(spec) or _is_array_like(spec)):
        raise ValueError(f"{argument}: got {spec!r:.80}, wanted one of {sorted(_REGISTRY)} or a function")
    return _given(as_array(spec, argument), argument)


def _is_array_like(value: Any) -> bool:
    return isinstance(value, (list, tuple, memoryview)) or hasattr(value, "__array__") or hasattr(value, "to_numpy")


def _given(value: np.ndarray, argument: str) -> Initializer:
    """Return an initializer that gives copies of `value` as it is now."""
    if value.dtype.kind == "b":
        raise ValueError(f"{argument}: wanted numbers, got {value!r:.80}")
    value = np.array(_rounded(value, np.result_type(value, np.float32), argument))

    def given(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if value.ndim and value.shape != shape:
            raise ValueError(f"{argument}: the array given has shape {value.shape}, wanted {shape}")
        return np.array(np.broadcast_to(_rounded(value, dtype, argument), shape))

    return given


def describe(initializer: Initializer | None, where: str) -> Any:
    """Describe an initializer in JSON-able values that `get` accepts; ValueError if it has no registered name."""
    if initializer is None:
        return None
    name = _NAMES.get(type(initializer))
    if name is None:
        raise ValueError(f"{where}: the initializer {initializer!r} has no registered name, so it cannot be saved")
    options = asdict(initializer)  # type: ignore[call-overload]
    return {"name": name, **options} if options else name


def option(default: Any = "glorot_uniform", of_lstm_gates: bool = False) -> Any:
    """A field for the initializer of a cell or layer; None is allowed if it is the default. `of_lstm_gates` says that
    it makes the biases of the gates i, j, f and o, as `Chrono` does.
    """

    def check(value: Any, name: str, where: str) -> Initializer | None:
        found = None if value is None and default is None else get(value, f"{where}: {name}")
        if isinstance(found, Chrono) and not of_lstm_gates:
            raise ValueError(f"{where}: {name}: Chrono makes the bias of an LSTMCell or BasicLSTMCell, not this one")
        return found

    return any_option(default, check, describe, show=False)
