"""All interoperability tests, each file in a process of its own, with no skips allowed.

    python tests/interop/run.py [--claims FOLDER] [pytest options]

TensorFlow can be put into the mode of version 1 once in a process and not back, so files that need it in different
modes cannot share one. Runs that are given the same empty folder share the files: each file is run by one of them.
"""

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).parent


def run(path: Path, options: list[str]) -> str:
    """Run one file; what is wrong with the result, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.xml"
        command = [sys.executable, "-m", "pytest", "-m", "interop", str(path), f"--junitxml={summary}", *options]
        code = subprocess.run(command, check=False).returncode
        if code:
            return f"{path.name}: exit code {code}"
        suites = list(ElementTree.parse(summary).getroot().iter("testsuite"))
    skipped = sum(int(suite.get("skipped", 0)) for suite in suites)
    tests = sum(int(suite.get("tests", 0)) for suite in suites)
    if skipped or not tests:
        return f"{path.name}: {skipped} of {tests} tests were skipped; none may be"
    return ""


def claim(path: Path, claims: Path | None) -> bool:
    """Whether this run is the first to ask for the file; always, if nobody shares the files."""
    if claims is None:
        return True
    try:
        (claims / path.name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> int:
    """Run every file, or every one that no other run has claimed, and list what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=Path, metavar="FOLDER", help="share the files with other runs")
    given, options = parser.parse_known_args()
    paths = (path for path in sorted(HERE.glob("test_*.py")) if claim(path, given.claims))
    faults = [fault for path in paths if (fault := run(path, options))]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
