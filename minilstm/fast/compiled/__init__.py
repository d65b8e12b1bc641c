"""The fast pass again, compiled by numba where that is installed (the extra `fast`), for float32.

What NumPy cannot reach, and what is done about it:

- **Products of a few columns.** A library multiplies large matrices at full rate; a step's product has as many rows as
  the batch, and half of the time goes elsewhere. `tile` is the innermost loop of a product, written for it: the kernel
  is laid out once a pass in the order in which its numbers are used, and sums stay in registers.
- **One pass over the gates.** NumPy goes over a step nine times each way; compiled, a number is fetched once
  (`functions`).
- **All cores.** The sequences of a batch do not meet before the kernel's gradient is summed up, so its parts go
  through all steps side by side, without waiting for each other (`workspace`, `workers`).
- **Adam in one loop**, with the same bits (`optimizers`).

numba is imported by the first pass that can use it, and keeps what it compiled for the next process.
``MINILSTM_COMPILED=0`` in the environment leaves all of this out. As many threads are used as BLAS is told to use
(``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS``), otherwise one for each core. A large product of another layer wakes
BLAS's own threads, which keep their cores busy for a tenth of a second after it; until then the second core is shared.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .workspace import Workspace


LARGEST = 3 << 19  # entries of a kernel, 6 MB: a larger one is fetched anew for each step, and the gain is under 1.2


def applies(dtype: Any, kernel_size: int = 0) -> bool:
    """Whether a pass is compiled: in float32, with a kernel of up to LARGEST entries, where numba is installed.

    And where the environment has nothing against it.
    """
    return kernel_size <= LARGEST and wanted(dtype) and workspace_class() is not None


def wanted(dtype: Any) -> bool:
    """Whether passes in this dtype are to be compiled; numba is looked for, but not loaded.

    The answer does not depend on what the process did before, so what is chosen by it has the same bits in each.
    """
    return os.environ.get("MINILSTM_COMPILED", "1") != "0" and dtype == np.float32 and _installed()


@functools.lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.lru_cache(maxsize=1)
def workspace_class() -> type[Workspace] | None:
    """The compiled counterpart of `minilstm.fast.workspace.Workspace`, or None where numba is missing."""
    if not _installed():
        return None
    try:
        from .workspace import Workspace
    except ImportError as error:  # a numba that does not go with this NumPy
        warnings.warn(f"minilstm: numba is installed, but cannot be used: {error}", RuntimeWarning, stacklevel=2)
        return None
    return Workspace


def adam_loop(dtype: Any) -> Any:
    """The compiled counterpart of `minilstm.optimizers.adam`; None where no pass is compiled, or none has been yet.

    To load numba for Adam alone takes longer than it saves in a toy run; both have the same bits.
    """
    if f"{__name__}.workspace" not in sys.modules or not applies(dtype):
        return None
    from .adam import adam as compiled_adam

    return compiled_adam
