"""The time of `import minilstm`, and the libraries that it does not load."""

import json
import os
import statistics
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource", reason="the times of children are counted on POSIX alone")

NOT_LOADED = {
    "matplotlib", "tqdm", "scipy", "tensorflow", "keras", "tf_keras", "torch", "h5py", "safetensors", "onnx", "dask",
    "onnxruntime", "google_crc32c", "joblib", "tensorboardX", "IPython", "pandas", "numba", "ml_dtypes",
}  # fmt: skip


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout


def test_importing_loads_no_library_that_a_script_may_never_need():
    loaded = set(json.loads(python("import minilstm, sys, json; print(json.dumps(sorted(sys.modules)))")))
    assert "minilstm.training" in loaded
    assert not loaded & NOT_LOADED


UNUSED = {"numpy.ma", "socket", "pathlib", "minilstm.fast.second", "minilstm.tensorbundle.slice_file"}
RUN = """
import os, sys, tempfile
os.environ["MINILSTM_COMPILED"] = "0"  # numba loads a great deal
import numpy as np, autograd.numpy
before = set(sys.modules)  # an older NumPy loads more by itself
from minilstm import LSTM, Adam, Dense, Sequential, fit, losses, save_checkpoint
x, model = np.zeros((6, 4, 1), np.float32), Sequential(LSTM(3), Dense(1))
found = fit(model, model.init(0, 1), losses.mse, (x, x + 1), optimizer=Adam(), epochs=1, batch_size=3, progress=False)
with tempfile.TemporaryDirectory() as folder:
    save_checkpoint(folder + "/m", found.params, opt_state=found.opt_state, model=model)
print(sorted((set(sys.modules) - before) & set({})))
"""


def test_a_toy_program_loads_nothing_that_it_does_not_use():
    """They took 2.7 of its 47 megabytes."""
    assert python(RUN.format(sorted(UNUSED))).strip() == "[]"


def cpu_seconds(statement, environment):
    """User and system time of a fresh interpreter that runs one statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], env=environment, timeout=120, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_costs_less_than_one_and_a_half_times_autograd(tmp_path):
    """Medians over interpreters that take turns, so that a busy machine slows both. Byte code exists, as for a user."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    statements = {"ours": "import minilstm", "autograds": "import autograd.numpy"}
    for statement in statements.values():
        cpu_seconds(statement, environment)  # writes the byte code
    for _ in range(3):  # noise may spoil one attempt, but hardly three
        times = {name: [] for name in statements}
        for _ in range(7):
            for name, statement in statements.items():
                times[name].append(cpu_seconds(statement, environment))
        ratio = statistics.median(times["ours"]) / statistics.median(times["autograds"])
        if ratio < 1.5:
            return
    raise AssertionError(f"import minilstm costs {ratio:.2f} times import autograd.numpy: {times}")
