"""The lines of Python that build a model in PyTorch, load its state dict and run it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Dense, Dropout, Embedding
from ..shapes import params_dtype
from .parts import activation_name, features_in, weights_of
from .torch_modules import Module

ACTIVATIONS = {
    "tanh": "torch.tanh",
    "sigmoid": "torch.sigmoid",
    "relu": "torch.relu",
    "softsign": "torch.nn.functional.softsign",
}


def code_of(path: str, modules: list[Module], params: dict[str, Any]) -> str:
    """The lines that define ``model`` and ``forward``, with the file at `path`."""
    dtype = params_dtype(params, np.float32)
    shape, inputs = "[batch, time, features]", f"inputs, dtype=torch.{dtype}"
    if isinstance(modules[0].parts[0].layer, Embedding):
        shape, inputs = "[batch, time]", "inputs"
    return "\n".join(
        [
            "import torch",
            "from safetensors.torch import load_file",
            "",
            "model = torch.nn.ModuleDict({",
            *(f"    {module.name!r}: torch.nn.{_constructor(module, params)}," for module in modules),
            "})" if dtype == np.float32 else f"}}).to(torch.{dtype})",
            f"model.load_state_dict(load_file({path!r}))",
            "model.eval()  # train() to train: then Dropout acts",
            "",
            f"def forward(inputs):  # {shape}",
            f"    x = torch.as_tensor({inputs})",
            *(f"    {line}" for module in modules for line in _steps(module)),
            "    return x",
            "",
        ]
    )


def _constructor(module: Module, params: dict[str, Any]) -> str:
    first = module.parts[0]
    if isinstance(first.layer, Dropout):
        return f"Dropout({first.layer.rate!r})"
    width = features_in(first, weights_of(params, first))
    if first.runner is None:
        return f"{'Linear' if isinstance(first.layer, Dense) else 'Embedding'}({width}, {first.layer.units})"
    options = {"num_layers": len(module.parts)} if len(module.parts) > 1 else {}
    options |= {"batch_first": not first.runner.time_major}
    options |= {"bidirectional": True} if first.backward is not None else {}
    options |= {"proj_size": first.sizes.num_proj} if first.sizes.num_proj is not None else {}
    text = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{first.kind}({width}, {first.layer.units}, {text})"


def _steps(module: Module) -> list[str]:
    first, last, call = module.parts[0], module.parts[-1], f"model[{module.name!r}](x)"
    runner = first.runner
    if runner is None:
        name = activation_name(getattr(first.layer, "activation", None), "export.torch.save")
        return [f"x = {ACTIVATIONS[name]}({call})" if name in ACTIVATIONS else f"x = {call}"]
    time = 0 if runner.time_major else 1
    flip = [f"x = x.flip({time})"] if runner.reverse else []
    at = "" if runner.time_major else ":, "
    step = f"x = x[{at}-1]"
    if first.backward is not None:  # the backward direction ends at the first step
        width = last.layer.output_size
        step = f"x = torch.cat([x[{at}-1][..., :{width}], x[{at}0][..., {width}:]], -1)"
    return [*flip, f"x, _ = {call}", *(flip if last.return_sequences else [step])]
