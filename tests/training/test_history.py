"""history.csv and the progress bar."""

import csv
import os
import sys

import pytest

from minilstm.progress import ProgressBar
from minilstm.training.history import HistoryFile


def rows(directory):
    with open(directory / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_on_disk_at_once_and_keeps_every_digit(tmp_path):
    history = HistoryFile(tmp_path)
    history.append(1, 10, {"loss": [0.1 + 0.2]}, 1.23456)
    assert rows(tmp_path) == [{"epoch": "1", "step": "10", "loss": "0.30000000000000004", "seconds": "1.235"}]
    history.append(2, 20, {"loss": [9.0, 1e-300]}, 2)
    assert [float(row["loss"]) for row in rows(tmp_path)] == [0.1 + 0.2, 1e-300]


def test_the_directory_is_made_with_the_first_row_only(tmp_path):
    history = HistoryFile(tmp_path / "deep" / "run")
    assert not (tmp_path / "deep").exists()
    history.append(1, 1, {"loss": [1.0]}, 0)
    assert len(rows(tmp_path / "deep" / "run")) == 1


def test_without_a_directory_nothing_happens():
    HistoryFile(None).append(1, 1, {"loss": [1.0]}, 0)


LOSSES = [3.0, 2.0, 0.1 + 0.2]


def written(directory, epochs=3):
    """A file as a run writes it; returns its bytes."""
    history = HistoryFile(directory, constants={"mean": 0.5})
    for n in range(epochs):
        history.append(n + 1, 10 * (n + 1), {"loss": LOSSES[: n + 1]}, n / 8)
    return (directory / "history.csv").read_bytes()


def kept(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != "history.csv")


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("tail", ["", "4,4", "4,40,0.5,0.5,0.1\n5,50,0"])
def test_rows_beyond_the_checkpoint_are_dropped_and_seconds_stay(epochs, tail, tmp_path):
    written(tmp_path)
    with open(tmp_path / "history.csv", "a") as file:
        file.write(tail)
    HistoryFile(tmp_path, {"loss": LOSSES[:epochs]}, [10, 20, 30][:epochs], {"mean": 0.5})
    assert kept(tmp_path) == []
    assert [row["seconds"] for row in rows(tmp_path)] == ["0.000", "0.125", "0.250"][:epochs]
    assert [float(row["loss"]) for row in rows(tmp_path)] == LOSSES[:epochs]
    assert [row["step"] for row in rows(tmp_path)] == ["10", "20", "30"][:epochs]


SPOILT = {
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "semicolons": lambda text: text.replace(b",", b";"),
    "a comment on top": lambda text: b"# my run\n" + text,
    "a row torn in the middle": lambda text: text.replace(b"2,20,2.0,0.5,0.125", b"2,20,"),
    "a row lost": lambda text: b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"2,")),
    "another number": lambda text: text.replace(b"2.0", b"2.5"),
    "another column": lambda text: text.replace(b"seconds", b"mine"),
    "no text": lambda text: b"\xff\xfe\x00" + text,
    "a row too long": lambda text: text.replace(b"2.0", b"2.0,1"),
    "a quote left open": lambda text: text.replace(b"2,20", b'"2,20'),
    "an empty line on top": lambda text: b"\n" + text,
    "another file": lambda text: b"PNG...\n",
    "NULs": lambda text: text.replace(b"2", b"\0"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_checkpoint_is_the_source_and_what_cannot_be_read_is_kept(name, tmp_path):
    spoilt = SPOILT[name](written(tmp_path))
    (tmp_path / "history.csv").write_bytes(spoilt)
    for _ in range(2):  # from then on it is sound
        HistoryFile(tmp_path, {"loss": LOSSES}, [10, 20, 30], {"mean": 0.5})
        assert [float(row["loss"]) for row in rows(tmp_path)] == LOSSES
        assert [row["step"] for row in rows(tmp_path)] == ["10", "20", "30"]
        assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3"]
        assert kept(tmp_path) == ["history.csv.kept"]
        assert (tmp_path / "history.csv.kept").read_bytes() == spoilt
    (tmp_path / "history.csv").write_bytes(spoilt)
    HistoryFile(tmp_path, {"loss": LOSSES}, [10, 20, 30], {"mean": 0.5})
    assert kept(tmp_path) == ["history.csv.kept", "history.csv.kept-2"]


def test_a_last_row_torn_in_a_number_gets_its_numbers_from_the_checkpoint(tmp_path):
    text = written(tmp_path)
    (tmp_path / "history.csv").write_bytes(text[: text.index(b"3,30,0.3") + len(b"3,30,0.3")])
    HistoryFile(tmp_path, {"loss": LOSSES}, [10, 20, 30], {"mean": 0.5})
    assert [float(row["loss"]) for row in rows(tmp_path)] == LOSSES
    assert [row["seconds"] for row in rows(tmp_path)] == ["0.000", "0.125", ""]
    assert kept(tmp_path) == []  # a kill leaves such a row


def test_a_whole_file_is_not_written_again(tmp_path):
    text = written(tmp_path)
    before = os.stat(tmp_path / "history.csv")
    HistoryFile(tmp_path, {"loss": LOSSES}, [10, 20, 30], {"mean": 0.5})
    assert (tmp_path / "history.csv").read_bytes() == text
    assert os.stat(tmp_path / "history.csv").st_ino == before.st_ino


def test_rows_of_a_run_that_has_no_checkpoint_are_kept_beside(tmp_path):
    text = written(tmp_path)
    HistoryFile(tmp_path)
    assert kept(tmp_path) == ["history.csv.kept"]
    assert (tmp_path / "history.csv.kept").read_bytes() == text
    assert not (tmp_path / "history.csv").exists()


def test_a_column_that_begins_later_is_in_all_rows(tmp_path):
    written(tmp_path, 2)
    history = {"loss": LOSSES[:2], "val_loss": [float("nan")] * 2}
    again = HistoryFile(tmp_path, history, [10, 20], {"mean": 0.5})
    again.append(3, 30, {"loss": LOSSES, "val_loss": [1.5]}, 0)
    assert [row["val_loss"] for row in rows(tmp_path)] == ["nan", "nan", "1.5"]
    assert kept(tmp_path) == []


SPECIAL = {
    "a dangling link": lambda path, outside: path.symlink_to(outside / "missing"),
    "a link": lambda path, outside: path.symlink_to(outside / "there"),
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: path.mkdir(),
}


@pytest.mark.parametrize("when", ["before", "between"])
@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_file_is_neither_read_nor_written_through(name, when, tmp_path):
    outside, directory = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    directory.mkdir()
    (outside / "there").write_text("mine")
    if when == "before":
        SPECIAL[name](directory / "history.csv", outside)
    history = HistoryFile(directory, {"loss": LOSSES[:1]}, [10])
    if when == "between":
        os.remove(directory / "history.csv")
        SPECIAL[name](directory / "history.csv", outside)
    history.append(2, 20, {"loss": LOSSES[:2]}, 0)
    assert [float(row["loss"]) for row in rows(directory)] == LOSSES[:2]
    assert kept(directory) == ["history.csv.kept"]
    assert os.listdir(outside) == ["there"]
    assert (outside / "there").read_text() == "mine"


def test_a_file_that_was_removed_comes_back_whole(tmp_path):
    history = HistoryFile(tmp_path)
    history.append(1, 10, {"loss": LOSSES[:1]}, 0)
    os.remove(tmp_path / "history.csv")
    history.append(2, 20, {"loss": LOSSES[:2]}, 0)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]


# --- the bar --------------------------------------------------------------------------------------------------


def test_the_bar_counts_from_where_a_run_goes_on(capsys):
    with ProgressBar(10, 7, True) as bar:
        for loss in (3.0, 2.0, 1.25):
            bar.advance(4, {"loss": loss, "rate": 1e-3})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "7/10" in captured.err
    assert "10/10" in captured.err
    assert "loss 1.25, rate 0.001" in captured.err


def test_the_bar_is_quiet_without_a_terminal_and_costs_no_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # an import would fail
    with ProgressBar(3) as bar:
        bar.advance(2, {"loss": 1.0})
    with ProgressBar(3, show=False) as bar:
        bar.advance(2, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_shown_where_stderr_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar(2) as bar:
        bar.advance(2, {"loss": 1.0})
        bar.advance(2, {"loss": 0.5})
    assert "2/2" in capsys.readouterr().err


def test_the_bar_is_closed_also_when_a_run_fails(capsys):
    bar = ProgressBar(5, 0, True)

    def failing_run():
        with bar:
            bar.advance(2, {"loss": 1.0})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing_run()
    assert bar._bar.disable
