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
    history = HistoryFile(tmp_path, 0)
    history.append(1, 10, {"loss": [0.1 + 0.2]}, 1.23456)
    assert rows(tmp_path) == [{"epoch": "1", "step": "10", "loss": "0.30000000000000004", "seconds": "1.235"}]
    history.append(2, 20, {"loss": [9.0, 1e-300]}, 2)
    assert [float(row["loss"]) for row in rows(tmp_path)] == [0.1 + 0.2, 1e-300]


def test_the_directory_is_made_with_the_first_row_only(tmp_path):
    history = HistoryFile(tmp_path / "deep" / "run", 0)
    assert not (tmp_path / "deep").exists()
    history.append(1, 1, {"loss": [1.0]}, 0)
    assert len(rows(tmp_path / "deep" / "run")) == 1


def test_without_a_directory_nothing_happens():
    HistoryFile(None, 0).append(1, 1, {"loss": [1.0]}, 0)


@pytest.mark.parametrize("epoch", [0, 1, 2, 9])
def test_rows_beyond_the_epoch_are_dropped(epoch, tmp_path):
    first = HistoryFile(tmp_path, 0)
    for k in (1, 2, 3):
        first.append(k, 10 * k, {"loss": [float(k)]}, 0)
    again = HistoryFile(tmp_path, epoch)
    again.append(epoch + 1, 10 * (epoch + 1), {"loss": [0.5]}, 0)
    kept = list(range(1, min(epoch, 3) + 1))
    assert [int(row["epoch"]) for row in rows(tmp_path)] == [*kept, epoch + 1]
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_torn_last_row_is_no_obstacle(tmp_path):
    HistoryFile(tmp_path, 0).append(1, 10, {"loss": [1.0]}, 0)
    with open(tmp_path / "history.csv", "a") as file:
        file.write("2,2")
    HistoryFile(tmp_path, 1).append(2, 20, {"loss": [0.5]}, 0)
    assert [(row["epoch"], row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("1", "10", "1.0"),
        ("2", "20", "0.5"),
    ]


def test_the_columns_of_the_first_row_stay(tmp_path):
    HistoryFile(tmp_path, 0).append(1, 10, {"loss": [1.0], "val_loss": [2.0]}, 0)
    again = HistoryFile(tmp_path, 1)
    again.append(2, 20, {"loss": [0.5], "grad_norm": [3.0]}, 0)
    assert rows(tmp_path)[1] == {"epoch": "2", "step": "20", "loss": "0.5", "val_loss": "", "seconds": "0.000"}


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
