"""The text of the state file: as TensorFlow writes it, and all that its readers accept."""

from __future__ import annotations

import contextlib

import pytest
from bundle_samples import CHECKPOINTS, FOLDERS
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError
from minilstm.tensorbundle.state_text import StateText, format_state, parse_state


@pytest.mark.parametrize("folder", FOLDERS)
def test_state_files_of_tensorflow_are_written_again_byte_for_byte(folder):
    data = (CHECKPOINTS / folder / "checkpoint").read_bytes()
    assert format_state(parse_state(data)) == data


def test_known_text():
    state = StateText("b-2", ("a-1", "b-2"), (1.5, 1e22), 1e9)
    assert format_state(state).decode().splitlines() == [
        'model_checkpoint_path: "b-2"',
        'all_model_checkpoint_paths: "a-1"',
        'all_model_checkpoint_paths: "b-2"',
        "all_model_checkpoint_timestamps: 1.5",
        "all_model_checkpoint_timestamps: 1e+22",
        "last_preserved_timestamp: 1000000000.0",
    ]


def test_escapes():
    # The escapes are TensorFlow's: named where C has a short name for it that protocol buffers use, octal else.
    quoted = r'"a\t\n\r\"\'\\\001\177µ"'.encode()
    text = b"model_checkpoint_path: " + quoted + b"\n"
    assert format_state(StateText("a\t\n\r\"'\\\x01\x7fµ")) == text
    assert parse_state(text).model_checkpoint_path == "a\t\n\r\"'\\\x01\x7fµ"


paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False)
states = st.builds(StateText, paths, st.lists(paths).map(tuple), st.lists(numbers).map(tuple), st.none() | numbers)


@given(states)
def test_what_is_written_is_read(state):
    assert parse_state(format_state(state)) == state


def test_file_names_that_are_not_utf8_come_back():
    state = StateText("a\udcff", ("a\udcff",))
    assert b"a\\377" in format_state(state)
    assert parse_state(format_state(state)) == state


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "m-2" all_model_checkpoint_paths: "m-1" all_model_checkpoint_paths: "m-2"',
        "model_checkpoint_path: 'm-2'\nall_model_checkpoint_paths: ['m-1', \"m-2\"]",
        "all_model_checkpoint_paths:['m-1','m-2'],model_checkpoint_path:'m-2';",
        'model_checkpoint_path: "m-1"\nmodel_checkpoint_path: "m-2"\nall_model_checkpoint_paths: ["m-1", "m-2"]',
        '# kept\nmodel_checkpoint_path: "m" # the latest\n"-"\n\'2\'\nall_model_checkpoint_paths: ["m" "-1", "m-2"]\n#',
        r'model_checkpoint_path: "\155\x2d\u0032" all_model_checkpoint_paths: ["m-1", "\U0000006d-2"]',
    ],
)
def test_readers_accept(text):
    assert parse_state(text.encode()) == StateText("m-2", ("m-1", "m-2"))


def test_numbers_of_any_spelling():
    text = b'model_checkpoint_path: "m" all_model_checkpoint_timestamps: [1, -2.5e3, 1.5f, inf, .5, 3f]'
    assert parse_state(text).all_model_checkpoint_timestamps == (1, -2500, 1.5, float("inf"), 0.5, 3)


def test_octal_escapes_make_utf8():
    assert parse_state(rb'model_checkpoint_path: "\303\251\47"').model_checkpoint_path == "é'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no model_checkpoint_path"),
        ('all_model_checkpoint_paths: "m"', "no model_checkpoint_path"),
        ("model_checkpoint_path", "line 1: no ':'"),
        ("model_checkpoint_path:", "a string belongs"),
        ('\n\nmodel_checkpoint_path: "m', "line 3: .* a string belongs"),
        ('model_checkpoint_path: "m\n"', "a string belongs"),
        ('model_checkpoint_path: "m\\', "a string belongs"),
        ("model_checkpoint_path: m", "a string belongs"),
        ("model_checkpoint_path: 1", "a string belongs"),
        ('model_checkpoint_path: ["m"]', "a string belongs"),
        (r'model_checkpoint_path: "\q"', "the escape"),
        (r'model_checkpoint_path: "\777"', "byte 511"),
        (r'model_checkpoint_path: "\ud800"', "the escape of a character 0xd800"),
        (r'model_checkpoint_path: "\UFFFFFFFF"', "the escape of a character"),
        ('model_checkpoint_path: "m" all_model_checkpoint_paths: ["m"', "a list without"),
        ('model_checkpoint_path: "m" all_model_checkpoint_timestamps: "1"', "a number belongs"),
        ('model_checkpoint_path: "m" all_model_checkpoint_timestamps: 1.2.3', "is no number"),
        ('model_checkpoint_path: "m" unknown: 1', "field 'unknown'"),
        ('model_checkpoint_path: "m" }', "the name of a field belongs"),
        ("\0" * 100, "the name of a field belongs"),
    ],
)
def test_what_is_no_state_file_is_refused(text, message):
    with pytest.raises(CheckpointError, match=message):
        parse_state(text.encode())


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_read_or_refused(data, cut):
    good = format_state(StateText("m-2", ("m-1",)))
    for text in (data, good[:cut] + data + good[cut:], good[:cut]):
        with contextlib.suppress(CheckpointError):
            parse_state(text)
