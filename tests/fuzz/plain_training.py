"""Three steps of training, written plainly: the equations of an LSTM in autograd.numpy, the update rules in NumPy.

Nothing here comes from minilstm. Sources: the equations in Hochreiter and Schmidhuber 1997 with the forget gate of Gers
et al. 2000 and the peepholes and projection of Sak et al. 2014; the update rules of TensorFlow 1.x. As TensorFlow does,
the rules take their numbers rounded to float32.
"""

import autograd.numpy as anp
import numpy as np


def sigmoid(x):
    return 0.5 * (anp.tanh(0.5 * x) + 1)


ACTIVATIONS = {
    "tanh": anp.tanh, "sigmoid": sigmoid, "relu": lambda x: anp.maximum(x, 0), "linear": lambda x: x, None: lambda x: x,
    "softsign": lambda x: x / (1 + anp.abs(x)),
}  # fmt: skip


def lstm(weights, x, lengths, reverse=False, **options):
    """Outputs ``[batch, time, width]`` and the last output of every sequence, of inputs ``[batch, time, features]``."""
    batch, time, _ = x.shape
    units = weights["kernel"].shape[1] // 4
    activation = ACTIVATIONS[options.get("activation", "tanh")]
    clip = lambda y, bound: y if bound is None else anp.clip(y, -bound, bound)  # noqa: E731
    c = np.zeros((batch, units))
    h = np.zeros((batch, options.get("num_proj") or units))
    outputs = [None] * time
    for t in reversed(range(time)) if reverse else range(time):
        z = anp.dot(anp.concatenate([x[:, t], h], axis=1), weights["kernel"]) + weights["bias"]
        z_i, z_j, z_f, z_o = (z[:, k * units : (k + 1) * units] for k in range(4))
        if options.get("use_peepholes"):
            z_i, z_f = z_i + weights["w_i_diag"] * c, z_f + weights["w_f_diag"] * c
        new_c = sigmoid(z_f + options.get("forget_bias", 1.0)) * c + sigmoid(z_i) * activation(z_j)
        new_c = clip(new_c, options.get("cell_clip"))
        if options.get("use_peepholes"):
            z_o = z_o + weights["w_o_diag"] * new_c
        new_h = sigmoid(z_o) * activation(new_c)
        if options.get("num_proj"):
            new_h = clip(anp.dot(new_h, weights["projection"]["kernel"]), options.get("proj_clip"))
        live = (t < lengths)[:, None]
        c, h = anp.where(live, new_c, c), anp.where(live, new_h, h)
        outputs[t] = anp.where(live, new_h, 0 * new_h)
    return anp.stack(outputs, axis=1), h


def model(layers, params, x, lengths, rng, time_major):
    """The outputs of a model; `layers` are ``(kind, name, options)``."""
    for kind, name, options in layers:
        if kind == "embedding":
            x = params[name]["embeddings"][x]
        elif kind == "lstm":
            sequence = options.get("return_sequences", True)
            options = {key: value for key, value in options.items() if key != "return_sequences"}
            outputs, last = lstm(params[name]["lstm_cell"], x, lengths, **options)
            x = outputs if sequence else last
        elif kind == "bidirectional":
            sequence = options.get("return_sequences", True)
            options = {key: value for key, value in options.items() if key != "return_sequences"}
            both = [
                lstm(params[name][way]["lstm_cell"], x, lengths, way == "bw", **options)[0 if sequence else 1]
                for way in ("fw", "bw")
            ]
            x = anp.concatenate(both, axis=-1)
        elif kind == "dropout":
            swap = time_major and x.ndim == 3
            kept = rng.random(x.swapaxes(0, 1).shape if swap else x.shape) >= options["rate"]
            x = x * ((kept.swapaxes(0, 1) if swap else kept) / (1 - options["rate"]))
        else:
            x = anp.dot(x, params[name]["kernel"]) + params[name]["bias"]
            x = ACTIVATIONS[options.get("activation")](x)
    return x


def loss(kind, outputs, targets, weights):
    """The mean of a loss over all entries, or weighted."""
    if kind == "mse":
        each = anp.mean((outputs - targets) ** 2, axis=-1)
    elif kind == "sigmoid_cross_entropy":
        # log(1 + exp(y)) - y * target, without overflow
        each = anp.mean(anp.logaddexp(0, outputs) - outputs * targets, axis=-1)
    else:
        top = anp.max(outputs, axis=-1, keepdims=True)
        log_sum = anp.log(anp.sum(anp.exp(outputs - top), axis=-1)) + top[..., 0]
        each = log_sum - anp.sum(outputs * np.eye(outputs.shape[-1])[targets], axis=-1)
    return anp.mean(each) if weights is None else anp.sum(each * weights) / np.sum(weights)


def update(kind, options, w, g, slots, t):
    """One step, numbered from 1, for one array: the new array; `slots` is a dict of this array's own, changed here."""
    get = lambda name: float(np.float32(options[name]))  # noqa: E731
    rate = get("learning_rate")
    if kind == "SGD":
        return w - rate * g
    if kind == "Momentum":
        a = slots["a"] = get("momentum") * slots.get("a", 0.0) + g
        return w - rate * (g + get("momentum") * a if options.get("use_nesterov") else a)
    if kind == "Adagrad":
        a = slots["a"] = slots.get("a", 0.1) + g * g
        return w - rate * g / np.sqrt(a)
    if kind == "RMSProp":
        decay = get("decay")
        ms = slots["ms"] = decay * slots.get("ms", 1.0) + (1 - decay) * g * g
        mom = slots["mom"] = get("momentum") * slots.get("mom", 0.0) + rate * g / np.sqrt(ms + get("epsilon"))
        return w - mom
    beta1, beta2 = get("beta1"), get("beta2")
    m = slots["m"] = beta1 * slots.get("m", 0.0) + (1 - beta1) * g
    v = slots["v"] = beta2 * slots.get("v", 0.0) + (1 - beta2) * g * g
    # TensorFlow keeps the powers of beta as float32 variables.
    power1, power2 = np.float32(beta1), np.float32(beta2)
    for _ in range(t - 1):
        power1, power2 = power1 * np.float32(beta1), power2 * np.float32(beta2)
    rate_t = rate * np.sqrt(1 - float(power2)) / (1 - float(power1))
    return w - rate_t * m / (np.sqrt(v) + get("epsilon"))


def clipped(grads, clip_norm):
    """A flat dict of gradients, scaled so that their common norm is at most `clip_norm`."""
    norm = np.sqrt(sum(float(np.sum(g * g)) for g in grads.values()))
    factor = 1.0 if clip_norm is None else min(1.0, clip_norm / norm) if norm else 1.0
    return {name: g * factor for name, g in grads.items()}
