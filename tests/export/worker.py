"""Another Python process that runs lines of code and hands arrays back.

TensorFlow with eager execution, and either of the two Kerases, cannot live in a process whose TensorFlow other tests
have switched to version 1; and one worker serves a whole module, so that TensorFlow is imported once.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

# The program of a user who trains a model with either Keras: its `layers`, by lines before, are in a row.
TRAINED = """
if {functional}:
    y = x
    for layer in layers:
        y = layer(y)
    model = K.Model(x, y)
else:
    model = K.Sequential([x, *layers])
model.compile("adam", "mse")
model.fit(inputs, model(inputs).numpy(), verbose=0)
results["outputs"] = model(inputs)
model.save({path!r})
"""


class Worker:
    """A process with environment variables of its own; use it as a context."""

    def __init__(self, **environment):
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, **quiet, **environment},
        )  # fmt: skip
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.folder.cleanup()

    def run(self, code, **arrays):
        """Run `code` with these arrays as variables; returns what it leaves in the dict ``results``, as arrays."""
        inputs, outputs = (str(Path(self.folder.name) / name) for name in ("inputs.npz", "outputs.npz"))
        np.savez(inputs, **arrays)
        print(json.dumps({"code": code, "inputs": inputs, "outputs": outputs}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the worker died"
        assert json.loads(answer) == "done", json.loads(answer)
        with np.load(outputs) as file:
            return dict(file)


def serve():
    """Answer one line of JSON after the other; what the code prints goes nowhere."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        job = json.loads(line)
        try:
            with np.load(job["inputs"]) as file:
                namespace = {**file, "np": np, "results": {}}
            exec(job["code"], namespace)
            np.savez(job["outputs"], **{name: np.asarray(value) for name, value in namespace["results"].items()})
            print(json.dumps("done"), file=answers, flush=True)
        except BaseException:
            print(json.dumps(traceback.format_exc()), file=answers, flush=True)


if __name__ == "__main__":
    serve()
