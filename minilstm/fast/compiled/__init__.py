"""The fast pass in float32, compiled by numba if it is installed (the extra `fast`).

What NumPy cannot do, and what is done instead:

- **Products of a few columns.** A BLAS library multiplies large matrices at full rate, but a step's product has only
  `batch` rows, below that rate. `tile` is an innermost loop made for it: the kernel is stored in the order in which
  its numbers are used, and sums stay in registers.
- **One pass over the gates.** NumPy reads and writes a step nine times each way; compiled, a number is fetched once
  (`functions`).
- **All cores.** The sequences of a batch do not meet before the kernel's gradient is summed, so parts of the batch go
  through all steps in parallel, without waiting for each other (`workspace`, `workers`).
- **Adam in one loop**, with the same bits (`adam`).

numba is imported by the first pass that can use it, and caches what it compiled for the next process.
``MINILSTM_COMPILED=0`` in the environment turns all of this off. The number of threads is BLAS's
(``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS``), otherwise one for each core. A product of BLAS wakes its own threads,
which keep their cores busy for a tenth of a second after it; until then the second core is shared. So the products of a
`Dense` next to compiled passes are compiled too (`dense`), unless its kernel is too large.
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
    from .workspace import CompiledWorkspace

LARGEST = 5 << 20  # entries of a kernel, 20 MB; a larger one leaves every cache at every step, and BLAS is as fast


def can_compile(dtype: Any, kernel_size: int = 0) -> bool:
    """Whether a pass is compiled: it is wanted, numba works, and the kernel has at most LARGEST entries."""
    return kernel_size <= LARGEST and is_wanted(dtype) and workspace_class() is not None


def is_wanted(dtype: Any) -> bool:
    """Whether passes in this dtype are compiled if possible: float32, numba is installed, the environment allows it.

    numba is not loaded for the answer, and the answer does not depend on what the process did before: so a choice that
    depends on it gives the same bits in every process.
    """
    return os.environ.get("MINILSTM_COMPILED", "1") != "0" and dtype == np.float32 and _is_installed()


@functools.lru_cache(maxsize=1)
def _is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.lru_cache(maxsize=1)
def workspace_class() -> type[CompiledWorkspace] | None:
    """The class of compiled workspaces, or None without numba."""
    if not _is_installed():
        return None
    try:
        from .workspace import CompiledWorkspace
    except ImportError as error:  # a numba that does not fit this NumPy
        warnings.warn(f"minilstm: numba is installed, but cannot be used: {error}", RuntimeWarning, stacklevel=2)
        return None
    return CompiledWorkspace


def adam_loop(dtype: Any) -> Any:
    """The compiled twin of `minilstm.fast.adam.numpy_adam`; None if no pass is compiled, or none has run yet.

    Loading numba for Adam alone takes longer than it saves in a toy run. Both have the same bits.
    """
    if f"{__name__}.workspace" not in sys.modules or not can_compile(dtype):
        return None
    from .adam import compiled_adam

    return compiled_adam
