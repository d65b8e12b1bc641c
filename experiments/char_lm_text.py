"""A text as labels in two parts, one to learn and one to score, and the scores of n-grams on it."""

from __future__ import annotations

import hashlib
import math
import platform
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LIBRARY_CHARACTERS = 1_111_111  # of the standard library: nine tenths make 400 windows of 50 x 50
UNKNOWN = "\ufffd"  # replaces every character that the first nine tenths do not have; its label is 0
NGRAM = 5  # the longest n-gram that the model is compared with
NGRAM_STRENGTH = 5.0  # the guess of the shorter context counts as this many occurrences of the context


class Corpus(NamedTuple):
    """A text, the names of its files, and its two parts as labels: indices into the vocabulary."""

    text: str
    files: list[str]
    vocabulary: str
    training: np.ndarray
    held_out: np.ndarray

    def describe(self) -> dict[str, Any]:
        """The Python version, files, sizes and SHA-256: enough to tell whether two people have the same text."""
        encoded = self.text.encode()
        return {
            "python": platform.python_version(),
            "files": self.files,
            "characters": len(self.text),
            "bytes": len(encoded),
            "sha256": hashlib.sha256(encoded).hexdigest(),
        }


def standard_library() -> list[Path]:
    """The top-level modules of the standard library, sorted by name."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def read_corpus(paths: Sequence[Path] | None = None, limit: int | None = None) -> Corpus:
    """The first `limit` characters of the files as one text.

    Parameters
    ----------
    paths : list of paths, optional
        Read as UTF-8; bytes that are not UTF-8 become `UNKNOWN`. Default: the standard library, with a `limit` of
        `LIBRARY_CHARACTERS`.
    limit : int, optional
        Default for given files: all characters. Files after the limit are not read.

    Raises
    ------
    ValueError
        If there are fewer than 20 characters, or a given file is not UTF-8 text.
    """
    given = paths is not None
    if paths is None:
        paths, limit = standard_library(), limit or LIBRARY_CHARACTERS
    text, used = "", []
    for path in paths:
        if limit is not None and len(text) >= limit:
            break
        try:
            more = path.read_text(encoding="utf-8-sig", errors="strict" if given else "replace")
        except UnicodeDecodeError:
            more = "\0"
        if given and "\0" in more:
            raise ValueError(f"char_lm: {path} is not UTF-8 text; convert it first")
        text += more
        used.append(path.name)
    text = text[:limit]
    if len(text) < 20:
        raise ValueError(f"char_lm: wanted a text of at least 20 characters, got {len(text)} from {len(used)} files")
    learned = len(text) * 9 // 10
    vocabulary = vocabulary_of(text[:learned])
    labels = encode(text, vocabulary)
    return Corpus(text, used, vocabulary, labels[:learned], labels[learned:])


def vocabulary_of(text: str) -> str:
    """`UNKNOWN`, then every other character of the text, sorted."""
    return UNKNOWN + "".join(sorted(set(text) - {UNKNOWN}))


def encode(text: str, vocabulary: str) -> np.ndarray:
    """The labels ``[characters]`` of a text; 0 for characters that the vocabulary does not have."""
    labels = {character: label for label, character in enumerate(vocabulary)}
    return np.array([labels.get(character, 0) for character in text], np.int64)


def decode(labels: np.ndarray, vocabulary: str) -> str:
    """The text of labels ``[characters]``, the inverse of `encode`."""
    return "".join(vocabulary[label] for label in labels)


def ngram_probabilities(labels: np.ndarray, learned: int, classes: int, order: int) -> np.ndarray:
    """The probability ``[characters]`` of every label, given the `order` - 1 labels before it.

    The first `learned` labels are counted. The counts of a context that was seen n times have weight n; the guess of
    the context that is shorter by one has weight `NGRAM_STRENGTH`. Without any context all classes are equally likely.
    """
    probabilities = np.full(len(labels), 1 / classes)
    context = np.zeros(len(labels), np.int64)  # a number for each different context: the labels before each place
    for _ in range(order):
        _, gram = np.unique(context * classes + labels, return_inverse=True)
        seen, together = (np.bincount(ids[:learned], minlength=ids.max() + 1)[ids] for ids in (context, gram))
        probabilities = (together + NGRAM_STRENGTH * probabilities) / (seen + NGRAM_STRENGTH)
        context = np.concatenate([[gram.max() + 1], gram[:-1]])  # a context and the label after it are the next context
    return probabilities


def simple_forecasts(corpus: Corpus, scored: int) -> dict[str, float]:
    """Nats per character of n-grams on `scored` characters, from the second held-out character on."""
    start, classes = len(corpus.training) + 1, len(corpus.vocabulary)
    labels = np.concatenate([corpus.training, corpus.held_out])
    found = {"uniform": math.log(classes)}
    for name, order in (("unigram", 1), ("bigram", 2), (f"{NGRAM}-gram", NGRAM)):
        probabilities = ngram_probabilities(labels, len(corpus.training), classes, order)
        found[name] = float(-np.mean(np.log(probabilities[start : start + scored])))
    return found


def bits(nats: float) -> float:
    """Nats to bits."""
    return nats / math.log(2)
