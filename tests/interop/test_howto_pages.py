"""The how-to pages that need other libraries do what they say: their blocks run here as they stand there, in order.

Cells run when the site is built; here they run once more, since the other blocks go on from them.
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from export.worker import Worker
from helpers import assert_close, assert_trees_close

from minilstm import load_checkpoint
from minilstm.tensorbundle import list_variables

pytestmark = pytest.mark.interop
ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<kind>\{code-cell\} ipython3|python|bash)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
CELL_OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::\w+:[^\n]*\n)+\n*)", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"\A%%bash -e\n")
PATH = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # so that `python` is this one


class Block(NamedTuple):
    """A block of code on a page; `cell` tells whether it runs when the site is built."""

    cell: bool
    tags: str
    shell: bool
    code: str

    def as_python(self):
        """The block as Python; a shell's output goes to the list `printed`, and a command that fails raises."""
        if not self.shell:
            return self.code
        command = f"['bash', '-ec', {self.code!r}]"
        return f"printed.append(subprocess.run({command}, check=True, stdout=subprocess.PIPE, text=True).stdout)"


def blocks_of(page):
    """The blocks of code on a page, in order."""
    found = []
    for fence in FENCE.finditer((ROOT / "docs" / "howto" / page).read_text()):
        options = CELL_OPTIONS.match(fence["text"])
        code = fence["text"][options.end() :] if options else fence["text"]
        shell = fence["kind"] == "bash" or SHELL.match(code) is not None
        cell = fence["kind"] not in ("python", "bash")
        found.append(Block(cell, options[0] if options else "", shell, SHELL.sub("", code)))
    return found


def program(folder, blocks):
    """The blocks as one program that runs in `folder`."""
    folder.mkdir()
    before = f"import os, subprocess\nos.chdir({str(folder)!r})\nprinted = []"
    return "\n".join([before, *(block.as_python() for block in blocks)])


def needs_version_1(block):
    return "compat.v1" in block.code


def test_the_page_about_exporting_runs_in_every_library(tmp_path):
    blocks = blocks_of("export.md")
    modern = [block for block in blocks if not needs_version_1(block)]
    assert sum(not block.cell for block in modern) >= 6
    with Worker(PATH=PATH, TF_USE_LEGACY_KERAS="0") as worker:
        code = program(tmp_path / "page", modern)
        found = worker.run(code + "\nresults.update(printed='\\n'.join(printed), cases=len(cases))")
    printed = str(found["printed"])
    assert printed.count("\nverified: a random batch") == 10  # seven formats, the average, two that the site runs too
    assert "not verified" not in printed
    assert "DIFFERENT" not in printed
    assert {path.name for path in (tmp_path / "page").iterdir()} >= {"model.onnx", "model.keras", "model.weights.h5"}


def test_tensorflow_1_goes_on_with_the_checkpoint_as_the_page_says(tmp_path):
    first, *others = blocks_of("export.md")
    theirs = [block for block in others if needs_version_1(block)]
    assert len(theirs) == 1
    with Worker(PATH=PATH, TF_USE_LEGACY_KERAS="1") as worker:
        worker.run(program(tmp_path / "page", [first, *theirs]))
    loaded = load_checkpoint(tmp_path / "page" / "runs" / "theirs")
    before = load_checkpoint(tmp_path / "page" / "runs" / "demo")
    assert (before.step, loaded.step) == (10, 11)
    assert type(loaded.opt_state) is type(before.opt_state)
    assert np.abs(loaded.params["dense"]["kernel"] - before.params["dense"]["kernel"]).max() > 1e-4


LOAD_CHECKS = """
theirs_before = session.run(y, {x: inputs})
for _ in range(3):
    session.run(step, {x: np.ones([2, 5, 3])})
further = {v.op.name: session.run(v) for v in tf.trainable_variables()}
tf.train.Saver().restore(session, "back/model.ckpt-5")
results.update(ours=outputs, theirs=theirs_before, count=session.run(count))
results.update({f"further/{name}": value for name, value in further.items()})
results.update({f"back/{v.op.name}": session.run(v) for v in tf.trainable_variables()})
"""
OPTIMIZER_INSIDE = """
from minilstm.tensorbundle import list_variables
with tf.Graph().as_default(), tf.Session() as session:
    x = tf.placeholder(tf.float32, [None, 5, 3])
    with tf.variable_scope("net"):
        hidden, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.BasicLSTMCell(4, forget_bias=0.5), x, dtype=tf.float32)
        y = tf.layers.dense(hidden, 1)
        tf.train.AdamOptimizer(0.01).minimize(tf.reduce_mean(y**2))
    session.run(tf.global_variables_initializer())
    wanted = session.run(y, {x: inputs})
    tf.train.Saver().save(session, "inside/model.ckpt")
inside = load_checkpoint("inside", like=plain, scope="net")
slots = [name for name, *_ in list_variables("inside/model.ckpt") if "Adam" in name]
results.update(inside=plain(inside.params, inputs), wanted=wanted, slots=slots, state=type(inside.opt_state).__name__)
"""


def test_the_page_about_loading_runs_on_a_file_of_tensorflow(tmp_path):
    blocks = blocks_of("load_tensorflow.md")
    stand_in = [block for block in blocks if "without-tensorflow" in block.tags]
    others = [block for block in blocks if block not in stand_in]
    assert (len(stand_in), sum(not block.cell for block in others)) == (1, 1)
    with Worker(PATH=PATH, TF_USE_LEGACY_KERAS="1") as worker:
        worker.run(program(tmp_path / "standin", stand_in))
        found = worker.run(program(tmp_path / "page", others) + LOAD_CHECKS + OPTIMIZER_INSIDE)
    same, theirs = (list_variables(tmp_path / name / "theirs" / "model.ckpt-2") for name in ("standin", "page"))
    assert same == theirs
    assert_close(found["ours"], found["theirs"], 1e-6, "outputs of the file")
    assert int(found["count"]) == 5
    further, back = (
        {name.removeprefix(f"{kind}/"): value for name, value in found.items() if name.startswith(f"{kind}/")}
        for kind in ("further", "back")
    )
    assert_trees_close(back, further, 2e-6)  # three steps here, three steps there
    assert len(back) == 4
    assert_close(found["inside"], found["wanted"], 1e-6, "outputs of the file with its optimizer in the scope")
    assert "net/net/rnn/basic_lstm_cell/kernel/Adam" in found["slots"]
    assert found["state"] == "AdamState"


def sweep(folder, arguments):
    """The rows of a sweep that was run in `folder`, without their times, in the order of their commands."""
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run(["bash", "-ec", arguments], cwd=folder, env=environment, check=True)
    with open(folder / "runs" / arguments.split("--out runs/")[1].strip() / "results.csv", newline="") as file:
        rows = [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: row["command"])


def test_the_page_about_sweeps_runs_on_dask_with_the_numbers_of_local_processes(tmp_path):
    blocks = blocks_of("sweep.md")
    (script,) = (block.code for block in blocks if block.code.startswith("%%writefile running_sum.py\n"))
    (tmp_path / "running_sum.py").write_text(script.partition("\n")[2])
    (dask,) = (block.code for block in blocks if block.shell and not block.cell)
    found = sweep(tmp_path, dask)
    assert (len(found), {row["status"] for row in found}) == (6, {"ok"})
    assert found == sweep(tmp_path, dask.replace("--backend dask", "").replace("runs/dask", "runs/local"))
