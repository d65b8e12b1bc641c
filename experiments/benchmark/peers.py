"""The same training step, forward pass, generation step and saving in every library of the benchmark.

`PEERS` maps a name to a class. An instance holds a model LSTM(units), Dense(1) in float32 and has four methods:
`step(x, y)` trains on a batch (forward, mean squared error on all steps, backward, Adam) and returns the loss;
`forward(x)` predicts; `generate(x)` predicts one step at batch 1 from a carried state; `save(folder)` writes the
weights and Adam's moments. A peer imports its library when an instance is made. `modules` must be installed;
`environment` must be set before the process starts.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

LEARNING_RATE = 1e-3


class Minilstm:
    """minilstm with its default, hand-derived passes, in pure NumPy."""

    name, backprop = "minilstm", "fast"
    modules: tuple[str, ...] = ("minilstm",)
    environment: ClassVar[dict[str, str]] = {"MINILSTM_COMPILED": "0"}

    def __init__(self, input_dim: int, units: int) -> None:
        from minilstm import LSTM, Adam, Dense, Sequential, losses, value_and_grad
        from minilstm.fast import compiled

        wanted = self.environment["MINILSTM_COMPILED"] != "0"
        if compiled.can_compile(np.float32) != wanted:
            raise RuntimeError(f"{self.name}: a process for it needs the environment {self.environment}")
        self.model = Sequential(LSTM(units, backprop=self.backprop), Dense(1))
        self.params = self.model.init(seed=0, input_dim=input_dim)
        self.optimizer = Adam(LEARNING_RATE)
        self.opt_state = self.optimizer.init(self.params)
        self.derive = value_and_grad(lambda params, x, y: losses.mse(self.model(params, x), y))
        self.state: Any = None

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        loss, grads = self.derive(self.params, x, y)
        self.params, self.opt_state = self.optimizer.update(self.params, grads, self.opt_state, donate=True)
        return float(loss)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.model(self.params, x)

    def generate(self, x: np.ndarray) -> np.ndarray:
        outputs, self.state = self.model.apply(self.params, x, state=self.state)
        return outputs

    def truncated(self, x: np.ndarray, y: np.ndarray, stride: int) -> None:
        """One pass of truncated backpropagation over a long batch, an update every `stride` steps."""
        from minilstm import fit, losses, tbptt

        options: dict[str, Any] = {"epochs": 1, "batch_size": len(x), "progress": False}
        fit(self.model, self.params, losses.mse, (x, y), optimizer=self.optimizer, tbptt=tbptt(stride), **options)

    def save(self, folder: str) -> None:
        from minilstm import save_checkpoint

        save_checkpoint(os.path.join(folder, "model.ckpt"), self.params, opt_state=self.opt_state, model=self.model)


class Compiled(Minilstm):
    """minilstm with its loops compiled by numba."""

    name, modules = "minilstm, compiled", ("minilstm", "numba")
    environment: ClassVar[dict[str, str]] = {"MINILSTM_COMPILED": "1"}


class Traced(Minilstm):
    """minilstm differentiated by autograd's trace."""

    name, backprop = "autograd's trace", "autograd"


class PyTorch:
    """torch.nn.LSTM and Linear."""

    name, modules = "torch", ("torch",)
    environment: ClassVar[dict[str, str]] = {}

    def __init__(self, input_dim: int, units: int) -> None:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
        torch.manual_seed(0)
        self.torch = torch
        self.lstm = torch.nn.LSTM(input_dim, units, batch_first=True)
        self.dense = torch.nn.Linear(units, 1)
        self.optimizer = torch.optim.Adam([*self.lstm.parameters(), *self.dense.parameters()], lr=LEARNING_RATE)
        self.state: Any = None

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        inputs, targets = self.torch.from_numpy(x), self.torch.from_numpy(y)
        self.optimizer.zero_grad()
        loss = self.torch.nn.functional.mse_loss(self.dense(self.lstm(inputs)[0]), targets)
        loss.backward()
        self.optimizer.step()
        return float(loss)

    def forward(self, x: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            return self.dense(self.lstm(self.torch.from_numpy(x))[0]).numpy()

    def generate(self, x: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            outputs, self.state = self.lstm(self.torch.from_numpy(x), self.state)
            return self.dense(outputs).numpy()

    def save(self, folder: str) -> None:
        state = {"lstm": self.lstm.state_dict(), "dense": self.dense.state_dict(), "adam": self.optimizer.state_dict()}
        self.torch.save(state, os.path.join(folder, "model.pt"))


class Jax:
    """jax.jit over lax.scan, with Adam written out; weights in minilstm's layout."""

    name, modules = "jax", ("jax",)
    environment: ClassVar[dict[str, str]] = {"JAX_PLATFORMS": "cpu"}

    def __init__(self, input_dim: int, units: int) -> None:
        import jax
        import jax.numpy as jnp

        self.jax = jax
        rng = np.random.default_rng(0)

        def glorot(*shape: int) -> Any:
            limit = np.sqrt(6 / sum(shape))
            return jnp.asarray(rng.uniform(-limit, limit, shape), jnp.float32)

        self.params = {
            "kernel": glorot(input_dim, 4 * units), "recurrent": glorot(units, 4 * units),
            "bias": jnp.zeros(4 * units), "dense": glorot(units, 1), "dense_bias": jnp.zeros(1),
        }  # fmt: skip
        m, v = (jax.tree_util.tree_map(jnp.zeros_like, self.params) for _ in range(2))
        self.adam = (m, v, jnp.zeros((), jnp.int32))

        def run(params: Any, x: Any, state: Any) -> tuple[Any, Any]:
            gates_x = jnp.swapaxes(x, 0, 1) @ params["kernel"] + params["bias"]

            def cell(carry: Any, gate_x: Any) -> tuple[Any, Any]:
                c, h = carry
                i, j, f, o = jnp.split(gate_x + h @ params["recurrent"], 4, axis=1)
                c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (c, h), h

            state, outputs = jax.lax.scan(cell, state, gates_x)
            return jnp.swapaxes(outputs @ params["dense"] + params["dense_bias"], 0, 1), state

        def zero_state(x: Any) -> Any:
            return (jnp.zeros((x.shape[0], units)), jnp.zeros((x.shape[0], units)))

        def loss(params: Any, x: Any, y: Any) -> Any:
            return jnp.mean((run(params, x, zero_state(x))[0] - y) ** 2)

        def step(params: Any, adam: Any, x: Any, y: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(params, x, y)
            m, v, t = adam
            t = t + 1
            tree_map = jax.tree_util.tree_map
            m = tree_map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
            v = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
            rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            params = tree_map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), params, m, v)
            return value, params, (m, v, t)

        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._forward = jax.jit(lambda params, x: run(params, x, zero_state(x))[0])
        self._generate = jax.jit(run)
        self.state: Any = zero_state(np.zeros((1, 1, input_dim)))

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        loss, self.params, self.adam = self._step(self.params, self.adam, x, y)
        return float(loss)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._forward(self.params, x))

    def generate(self, x: np.ndarray) -> np.ndarray:
        outputs, self.state = self._generate(self.params, x, self.state)
        return np.asarray(outputs)

    def save(self, folder: str) -> None:
        leaves = self.jax.tree_util.tree_leaves((self.params, self.adam))
        np.savez(os.path.join(folder, "model.npz"), *map(np.asarray, leaves))


class Keras:
    """Keras on TensorFlow: LSTM and Dense, compiled with Adam; ``train_on_batch`` makes a step."""

    name, modules = "keras (tensorflow)", ("keras", "tensorflow")
    environment: ClassVar[dict[str, str]] = {
        "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1",
    }  # fmt: skip

    def __init__(self, input_dim: int, units: int) -> None:
        import keras
        import tensorflow as tf

        threads = int(os.environ.get("OMP_NUM_THREADS", 2))
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        keras.utils.set_random_seed(0)
        self.model = keras.Sequential(
            [keras.Input((None, input_dim)), keras.layers.LSTM(units, return_sequences=True), keras.layers.Dense(1)]
        )
        self.model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss="mse")
        self.predict = tf.function(lambda x: self.model(x, training=False))

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        return float(self.model.train_on_batch(x, y))

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.predict(x).numpy()

    generate = forward  # carries no state; the work for one step is the same

    def save(self, folder: str) -> None:
        self.model.save(os.path.join(folder, "model.keras"))


PEERS: dict[str, Any] = {peer.name: peer for peer in (Minilstm, Compiled, Traced, PyTorch, Jax, Keras)}
