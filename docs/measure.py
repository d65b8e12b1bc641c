"""Run the tests with their long counts and save the results for the page on claims; measure for two chapters.

    python docs/measure.py suite         the default suite            -> docs/measured/suite.json
    python docs/measure.py interop       against the other libraries  -> docs/measured/interop.json
    python docs/measure.py second        products in JAX and PyTorch  -> docs/measured/second_products.json
    python docs/measure.py recompute     time and memory by steps     -> docs/measured/recompute.json

The first needs ``pip install '.[test]'``, the second and the third ``'.[test,interop]'``. ``--quick`` leaves out the
long counts, and the file notes it. A file is written only if no test failed, and for interop only if no test was
skipped. What the last two measure is in `measured_second.py`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path
from typing import Any

import measured_second

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "docs" / "measured"
PACKAGES = {
    "suite": ("numpy", "autograd", "hypothesis", "pytest"),
    "interop": ("numpy", "autograd", "tensorflow", "tf-keras", "keras", "torch", "onnx", "onnxruntime"),
}


def count(arguments: list[str], quick: bool) -> dict[str, dict[str, int]]:
    """Run pytest once; returns for each file the numbers of passed and skipped tests. A failure ends the program."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("MINILSTM_FULL", None)
    if not quick:
        environment["MINILSTM_FULL"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.xml"
        command = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={summary}", "-o", "junit_family=xunit1"]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if code:
            sys.exit(f"measure: {' '.join(command)} ended with {code}; nothing was written")
        cases = list(ElementTree.parse(summary).getroot().iter("testcase"))
    files: dict[str, dict[str, int]] = {}
    for case in cases:
        counted = files.setdefault(case.attrib["file"], {"passed": 0, "skipped": 0})
        counted["skipped" if case.find("skipped") is not None else "passed"] += 1
    return files


def write(name: str, found: dict[str, Any], packages: tuple[str, ...]) -> Path:
    """Write what was found with the command, the date and the versions; returns the path."""
    origin = {
        "command": " ".join(["python", "docs/measure.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {package: metadata.version(package) for package in packages},
    }
    MEASURED.mkdir(exist_ok=True)
    path = MEASURED / f"{name}.json"
    path.write_text(json.dumps({**origin, **found}, indent=1, sort_keys=True) + "\n")
    return path


def main() -> None:
    """Run what the command line names and write the file of results."""
    flags = argparse.ArgumentParser(prog="python docs/measure.py", description=(__doc__ or "").split("\n")[0])
    flags.add_argument("what", choices=[*sorted(PACKAGES), "second", "recompute"])
    flags.add_argument("paths", nargs="*", type=Path, help="test files to run instead of all")
    flags.add_argument("--quick", action="store_true", help="without the long counts")
    flags.add_argument("--steps", nargs="+", type=int, help="of recompute: the numbers of steps")
    options = flags.parse_args()
    if options.what in ("second", "recompute"):
        found = measured_second.products() if options.what == "second" else measured_second.growth(options.steps)
        name = "second_products" if options.what == "second" else "recompute"
        print(f"wrote {write(name, found, found.pop('packages'))}")
        return
    if options.what == "suite":
        files = count([str(path) for path in options.paths], options.quick)
    else:  # TensorFlow has modes that cannot share a process: each file gets its own
        files = {}
        for path in options.paths or sorted((ROOT / "tests" / "interop").glob("test_*.py")):
            files |= count(["-m", "interop", str(path)], options.quick)
        skipped = [name for name, counted in files.items() if counted["skipped"]]
        if skipped:
            sys.exit(f"measure: tests were skipped in {', '.join(skipped)}; nothing was written")
    write(options.what, {"long_counts": not options.quick, "files": files}, PACKAGES[options.what])
    print(f"wrote {MEASURED / options.what}.json: {sum(counted['passed'] for counted in files.values())} tests passed")


if __name__ == "__main__":
    main()
