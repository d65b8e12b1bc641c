"""Write TensorBoard event files while `fit` runs. Needs the extra ``tensorboard``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .. import optional
from ..arguments import check_path


def tensorboard(logdir: str | os.PathLike[str]) -> Callable[[Any], None]:
    """Return a callback for `minilstm.fit` that writes the newest entry of every quantity in the history.

        fit(..., callbacks=[tensorboard("runs/demo/events")])

    Raises ImportError if tensorboardX is missing; the message has the command that installs it.
    """
    library = optional.library("tensorboardX", "tensorboard", "pip install 'minilstm[tensorboard]'")
    writer = library.SummaryWriter(check_path(logdir, "logdir", "tensorboard"))

    def callback(result: Any) -> None:
        for name, values in result.history.items():
            writer.add_scalar(name, values[-1], result.step)
        for name, value in result.baselines.items():
            writer.add_scalar(f"baseline/{name}", value, result.step)
        writer.flush()

    return callback
