"""The character model: its text, its scores, its samples, and how it resumes."""

import hashlib
import json
import platform
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import Adam, load_checkpoint, losses, save_checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments import char_lm, char_lm_text

FILES = {
    "config.json", "history.csv", "results.json", "samples.txt", "loss.png", "surprise.png", "checkpoint",
}  # fmt: skip
SMALL = ["--limit", "20000", "--units", "32", "--epochs", "2", "--batch-size", "10", "--num-steps", "20"]
SETTINGS = char_lm.Settings(units=8, layers=2, epochs=2, batch_size=4, num_steps=10)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run on the standard library: (folder, what main returned, what it printed)."""
    out = tmp_path_factory.mktemp("char_lm")
    (out / "samples.txt").write_text("of a run before")
    (out / "config.json").write_text("of a run before")
    printed = []
    results = char_lm.main(["--out", str(out), *SMALL, "--learning-rate", "2e-2"], report=printed.append)
    return out, results, "\n".join(printed)


@pytest.fixture(scope="module")
def corpus():
    """The first 3000 characters of this file."""
    return char_lm_text.read_corpus([Path(__file__)], limit=3000)


def test_the_text_is_the_modules_of_the_library_in_order_up_to_the_limit():
    corpus = char_lm_text.read_corpus(limit=20_000)
    modules = [path.read_text(encoding="utf-8") for path in char_lm_text.standard_library()]
    assert corpus.text == "".join(modules)[:20_000]
    assert corpus.files == [path.name for path in char_lm_text.standard_library()][: len(corpus.files)]
    assert len("".join(modules[: len(corpus.files) - 1])) < 20_000 <= len("".join(modules[: len(corpus.files)]))
    assert len(corpus.training) == 18_000
    assert char_lm_text.decode(corpus.training, corpus.vocabulary) == corpus.text[:18_000]
    assert char_lm_text.decode(corpus.held_out, corpus.vocabulary) == corpus.text[18_000:]  # nothing unknown here


def test_the_default_is_large_enough_for_400_windows_an_epoch():
    corpus = char_lm_text.read_corpus()
    assert len(corpus.text) == char_lm_text.LIBRARY_CHARACTERS
    assert len(char_lm.batches_of(corpus.training, char_lm.Settings())) == 400


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_a_text_of_another_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "text").write_text("täglich " * 9, encoding)
    with pytest.raises(ValueError, match=r"char_lm: .*text is not UTF-8 text; convert it first"):
        char_lm_text.read_corpus([tmp_path / "text"])


def test_characters_that_are_not_in_the_training_text_are_unknown(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeff".encode() + b"ab\r\n" * 9 + "a\ufffdzü".encode())
    corpus = char_lm_text.read_corpus([path])
    assert corpus.text == "ab\n" * 9 + "a\ufffdzü"
    assert corpus.vocabulary == "\ufffd\nab"
    assert corpus.held_out.tolist() == [2, 0, 0, 0]
    assert char_lm_text.decode(corpus.held_out, corpus.vocabulary) == "a\ufffd\ufffd\ufffd"
    assert corpus.describe()["sha256"] == hashlib.sha256(corpus.text.encode()).hexdigest()


def test_a_text_can_be_several_files_and_must_not_be_empty(tmp_path):
    for name in "ba":
        (tmp_path / name).write_text(15 * name)
    assert char_lm_text.read_corpus([tmp_path / "b", tmp_path / "a"]).text == 15 * "b" + 15 * "a"
    first = char_lm_text.read_corpus([tmp_path / "b", tmp_path / "a", tmp_path / "missing"], limit=20)
    assert first.files == ["b", "a"]
    assert first.text == 15 * "b" + 5 * "a"
    with pytest.raises(ValueError, match="at least 20 characters, got 15 from 1 files"):
        char_lm_text.read_corpus([tmp_path / "a"])


def test_ngram_probabilities_follow_their_definition(corpus):
    labels = np.concatenate([corpus.training, corpus.held_out])
    learned, classes = len(corpus.training), len(corpus.vocabulary)
    found = char_lm_text.ngram_probabilities(labels, learned, classes, order=3)

    def probability(context, label):
        """The definition, by counting tuples."""
        shorter = probability(context[1:], label) if context else 1 / classes
        size = len(context) + 1
        grams = Counter(tuple(labels[t - size + 1 : t + 1]) for t in range(size - 1, learned))
        seen = sum(count for gram, count in grams.items() if gram[:-1] == context)
        return (grams[(*context, label)] + char_lm_text.NGRAM_STRENGTH * shorter) / (seen + char_lm_text.NGRAM_STRENGTH)

    for t in (learned, learned + 1, learned + 57, len(labels) - 1):
        assert found[t] == pytest.approx(probability(tuple(labels[t - 2 : t]), labels[t]), rel=1e-12)
    every = []
    for label in range(classes):  # after the training text, the probabilities of all labels add up to 1
        followed = np.append(labels[:learned], label)
        every.append(char_lm_text.ngram_probabilities(followed, learned, classes, order=3)[-1])
    assert sum(every) == pytest.approx(1)
    assert np.ptp(every) > 0.1


def test_the_score_carries_the_state_from_window_to_window(corpus):
    model, result = char_lm.build(len(corpus.vocabulary), SETTINGS), char_lm.train(corpus, SETTINGS, 0, progress=False)
    batches = char_lm.batches_of(corpus.held_out, SETTINGS)
    whole = losses.softmax_cross_entropy(model(result.params, batches.inputs), batches.targets)
    assert result.history["val_loss"][-1] == pytest.approx(float(whole), rel=1e-5)
    apart = [
        float(losses.softmax_cross_entropy(model(result.params, batch["inputs"]), batch["targets"]))
        for batch in map(batches, range(len(batches)))
    ]
    assert abs(np.mean(apart) - whole) > 1e-4  # without the state the score differs


def test_dropout_acts_between_layers_and_only_in_training(corpus):
    settings = SETTINGS._replace(dropout=0.5)
    model = char_lm.build(len(corpus.vocabulary), settings)
    params = model.init(0)
    inputs = corpus.training[None, :40]
    _, dropout, rnn, _ = model.layers
    assert dropout.rate == 0.5
    for cell in rnn.cell.cells:  # on outputs, never on the state
        assert (cell.input_keep_prob, cell.output_keep_prob, cell.state_keep_prob) == (1, 0.5, 1)
    kept = model(params, inputs)
    assert_trees_equal(kept, char_lm.build(len(corpus.vocabulary), SETTINGS)(params, inputs))
    assert np.abs(model(params, inputs, rng=0) - kept).max() > 1e-3
    trained, plain = (char_lm.train(corpus, s, seed=0, progress=False).history for s in (settings, SETTINGS))
    assert trained["loss"] != plain["loss"]


def test_a_run_writes_its_files_and_removes_the_old_ones(finished):
    out, results, printed = finished
    assert {path.name for path in out.iterdir() if not path.name.startswith("model.ckpt-")} == FILES
    assert json.loads((out / "results.json").read_text()) == results
    for name in FILES:
        assert str(out / name) in printed
    assert "of a run before" not in (out / "samples.txt").read_text()


def test_results_name_the_text_and_include_simple_forecasts(finished):
    out, results, printed = finished
    assert results["text"] == char_lm_text.read_corpus(limit=20_000).describe()
    assert results["text"]["python"] == platform.python_version()
    assert results["text"]["files"][0] == char_lm_text.standard_library()[0].name
    scores = results["bits_per_character"]
    assert list(scores) == ["lstm", "uniform", "unigram", "bigram", "5-gram"]
    assert scores["uniform"] == pytest.approx(np.log2(results["vocabulary"]))
    assert scores["lstm"] < scores["unigram"] < scores["uniform"]  # the model has learned something in 180 windows
    assert scores["lstm"] == pytest.approx(results["nats_per_character"]["lstm"] / np.log(2))
    assert results["step"] == 180
    assert results["held_out"]["scored"] == 10 * 199  # rows x columns; the first character of a row is not scored
    assert f"{scores['lstm']:.3f}" in printed
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["limit"] == 20_000
    assert config["command"]


def test_a_sample_is_written_after_every_epoch(finished):
    out, results, printed = finished
    text = (out / "samples.txt").read_text(encoding="utf-8")
    assert text.count("--- epoch") == 2
    assert f"--- epoch 2, {results['bits_per_character']['lstm']:.3f} bits" in text
    assert text.split("---\n")[-1].rstrip("\n") in printed


def test_a_sample_comes_from_the_checkpoint_alone(finished, monkeypatch):
    out, _, _ = finished
    monkeypatch.setattr(char_lm, "read_corpus", None)  # the text is not read again
    printed = []
    options = ["--out", str(out), "--sample", "40", "--prompt", "def "]
    first = char_lm.main(options, report=printed.append)
    assert printed == ["def " + first["sample"]]
    assert len(first["sample"]) == 40
    assert char_lm.main(options, report=printed.append) == first
    assert char_lm.main([*options, "--seed", "1"], report=printed.append) != first
    assert char_lm.main([*options, "--prompt", "x"], report=printed.append)["sample"] != first["sample"]
    coldest = [
        char_lm.main([*options, "--temperature", "0", "--seed", seed], report=printed.append) for seed in ("0", "1")
    ]
    assert coldest[0] == coldest[1]


def test_a_sample_at_temperature_0_takes_the_likeliest_characters(finished):
    loaded = load_checkpoint(finished[0])
    vocabulary = loaded.extra["vocabulary"]
    text = char_lm.sample(loaded.model, loaded.params, vocabulary, "import ", 20, temperature=0, seed=0)
    logits = loaded.model(loaded.params, char_lm_text.encode("import " + text, vocabulary)[None])[0]
    assert char_lm_text.decode(logits[6:-1].argmax(axis=1), vocabulary) == text


def test_impossible_samples_are_refused(tmp_path, corpus):
    with pytest.raises(FileNotFoundError):
        char_lm.main(["--out", str(tmp_path), "--sample", "5"])
    params = {"kernel": np.zeros((2, 2), np.float32)}
    save_checkpoint(tmp_path / "model.ckpt", params, opt_state=Adam(1e-3).init(params), step=1)
    with pytest.raises(ValueError, match="holds no character model"):
        char_lm.main(["--out", str(tmp_path), "--sample", "5"])
    model = char_lm.build(len(corpus.vocabulary), SETTINGS)
    with pytest.raises(ValueError, match="prompt must hold at least one character"):
        char_lm.sample(model, model.init(0), corpus.vocabulary, "", 5, 1.0, 0)
    with pytest.raises(SystemExit):
        char_lm.main(["--out", str(tmp_path), "--prompt", ""])


def test_a_resumed_run_ends_like_a_run_never_stopped(tmp_path, corpus):
    options = ["--text", __file__, "--limit", "3000", "--epochs", "2", "--quiet"]
    options += ["--units", "8", "--batch-size", "4", "--num-steps", "10"]
    whole = char_lm.main(["--out", str(tmp_path / "a"), *options])

    class Stopped(Exception):
        pass

    def stop(result):
        raise Stopped

    with pytest.raises(Stopped):
        char_lm.train(corpus, SETTINGS, 0, callbacks=[stop], checkpoint_dir=tmp_path / "b", progress=False)
    assert load_checkpoint(tmp_path / "b").step == whole["step"] // 2
    resumed = char_lm.main(["--out", str(tmp_path / "b"), *options, "--resume"])
    assert resumed == whole
    assert_trees_equal(load_checkpoint(tmp_path / "b").params, load_checkpoint(tmp_path / "a").params)
    samples = [(tmp_path / folder / "samples.txt").read_text(encoding="utf-8") for folder in "ab"]
    assert samples[0].endswith(samples[1])  # the same sample after the second epoch


def test_a_run_does_not_resume_with_another_text(tmp_path, corpus):
    char_lm.train(corpus, SETTINGS._replace(epochs=1), 0, checkpoint_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="learned a text with SHA-256"):
        char_lm.main(["--out", str(tmp_path), "--text", __file__, "--limit", "3001", "--resume"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--dropout", "1", r"rate must be in \[0, 1\), got 1.0|keep_prob must be in \(0, 1\], got 0.0"),
        ("--temperature", "-1", "temperature must be 0 or more, got -1.0"),
        ("--batch-size", "100000", "does not make batches of 100000 x 50"),
        ("--text", "no such file", "No such file"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written_or_removed(tmp_path, option, value, message):
    (tmp_path / "results.json").write_text("of a run before")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        char_lm.main(["--out", str(tmp_path), "--limit", "3000", option, value])
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_prompt_of_characters_that_were_not_learned_is_refused(finished):
    out = finished[0]
    with pytest.raises(ValueError, match=r"char_lm: prompt holds '日本', which the text of .* does not"):
        char_lm.sample_from(out, "日本 ", 5, 1.0, 0)
