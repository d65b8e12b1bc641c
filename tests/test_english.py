"""Phrases that took two readings, and came out, do not come back. CONTRIBUTING says what to write in their place."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PHRASES = {
    r"so many": "at most N, or N entries",
    r"lies?|lay": "is, is stored (or a bound: 'is in [0, 1)')",
    r"stands?|stood": "is",
    r"behind": "after",
    r"turn(?:s|ed|ing)? round": "transpose",
    r"dear(?:er)?": "slow, costly",
    r"who(?:m)?ever": "the caller, the user",
    r"somebody(?:'s)?|nobody(?:'s)?": "the caller, the user, no layer",
    r"of one's own": "your own, a user's own",
    r"shall": "must, or nothing",
    r"however (?:much|many)": "whatever its size",
    r"(?:no )?one piece of memory": "contiguous, non-contiguous",
    r"sees? to it": "makes sure",
    r"anew": "again",
    r"but for": "except",
    r"None where": "None if",
    r"on (?:its|their) account": "because of it",
    r"by so much": "by that much",
    r"the so": "the N",
    r"(?<=[.] )Not `\w+`,": "If `x` is false,",
    r"NumPy goes through blocks": "Make NumPy process non-contiguous blocks in place",
    r"as (?:it|they) (?:is|are|was|were) made": "in the layout in which it is computed",
    r"hand(?:s|ed)? on": "pass",
}
# Where the word is the right one: what is quoted from mathematics, from TensorFlow or from another program.
ALLOWED = ()
PATTERN = re.compile("|".join(rf"\b(?:{phrase})(?!\w)" for phrase in PHRASES), re.IGNORECASE)


def files():
    """The sources and pages of the repository, but not what is measured or quoted."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split() if listed.returncode == 0 and listed.stdout else []
    names = names or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.suffix in (".py", ".md")]
    rooms = ("minilstm/", "experiments/", "docs/")
    for name in names:
        own = name.startswith(rooms) or name in ("README.md", "CONTRIBUTING.md")
        if own and name.endswith((".py", ".md", ".js")) and "measured" not in name and (ROOT / name).is_file():
            yield name


@pytest.mark.parametrize("room", ["minilstm/", "experiments/", "docs/", ""])
def test_no_phrase_comes_back(room):
    found = []
    for name in files():
        if name.startswith(room) and (room or "/" not in name):
            for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
                match = PATTERN.search(line)
                if match and not any(allowed in line for allowed in ALLOWED):
                    found.append(f"{name}:{number}: {match[0]!r} in: {line.strip()}")
    assert not found, "\n".join(found)


def test_the_pattern_finds_what_it_is_for():
    for sentence in (
        "Only the so many likeliest labels can be drawn.",
        "NumPy goes through blocks that are no one piece of memory where they lie.",
        "Not `active`, it does nothing.",
        "Its product, with a vector, is no dearer than any other call however much it does.",
    ):
        assert PATTERN.search(f". {sentence}"), sentence
    assert not PATTERN.search("If `active` is false, it does nothing; a stack is understood.")
