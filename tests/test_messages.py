"""The reader of messages finds what it is for."""

import pytest
from messages import fault_of

from minilstm import LSTM, LSTMCell, losses
from minilstm.params import set_path


def caught(call):
    try:
        call()
    except Exception as error:
        return error


@pytest.mark.parametrize("call", [lambda: LSTMCell(0), lambda: losses.mse("a", "b"), lambda: LSTM(2, reverse="no")])
def test_a_good_message_has_no_fault(call):
    assert fault_of(caught(call)) is None


def test_a_message_that_says_not_who_or_what_is_found(monkeypatch):
    monkeypatch.setattr("minilstm.options.check_whole", lambda value, name, where: _refuse("wrong"))
    error = caught(lambda: LSTMCell(0))
    assert fault_of(error) is None  # raised outside minilstm, so it is not its message
    monkeypatch.undo()
    error = caught(lambda: LSTMCell(0))
    error.args = ("the size is wrong",)
    assert "does not begin with a function or a file" in fault_of(error)
    error.args = ("LSTMCell: that is wrong",)
    assert "names no argument" in fault_of(error)


def test_what_a_caller_completes_is_not_read():
    assert fault_of(caught(lambda: set_path({"a": 1}, "a", 2))) is None


def _refuse(text):
    raise ValueError(text)
