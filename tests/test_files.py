"""minilstm.files: what is written is the old or the new, and no temporary file is left."""

from __future__ import annotations

import os

import pytest
from tensorbundle.power_cut import original, replace_calls

from minilstm import files

CALLS = ["open_temporary", "write", "fsync_file", "replace", "fsync_directory"]


@pytest.fixture
def recorded(monkeypatch):
    """The names of the calls, in order; a call whose name is in `failing` raises instead of acting."""
    calls, failing = [], set()

    def recorder(name, unrecorded):
        def call(*args):
            calls.append(name)
            if name in failing:
                raise OSError(f"{name} fails")
            return unrecorded(*args)

        return call

    replace_calls(monkeypatch, {name: recorder(name, original(name)) for name in CALLS})
    return calls, failing


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_flushed_after_that(tmp_path, recorded):
    files.write_text(tmp_path / "a.json", "{}")
    assert recorded[0] == CALLS


@pytest.mark.parametrize("name", CALLS)
def test_a_failing_call_leaves_the_old_file_and_no_temporary_one(tmp_path, recorded, name):
    path = tmp_path / "a.json"
    path.write_text("old")
    recorded[1].add(name)
    with pytest.raises(OSError, match=f"{name} fails"):
        files.write_text(path, "new")
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.read_text() == ("new" if name == "fsync_directory" else "old")  # after the renaming it is too late


def test_text_is_written_in_utf8_with_its_own_line_ends(tmp_path):
    files.write_text(tmp_path / "a", "µ\r\nλ\n")
    assert (tmp_path / "a").read_bytes() == "µ\r\nλ\n".encode()


def test_what_a_killed_writer_left_is_swept_and_nothing_else_is(tmp_path):
    path = str(tmp_path / "a.json")
    others = [
        "a.json.minilstm-0123abcd",
        "a.json.tmp",
        "a.json.minilstm-0123abcg.tmp",
        "b.json.minilstm-0123abcd.tmp",
        "xa.json.minilstm-0123abcd.tmp",
        "a.json-2.minilstm-0123abcd.tmp",
    ]
    for name in [*others, "a.json.minilstm-0123abcd.tmp"]:
        (tmp_path / name).write_text("")
    files.write_bytes(path, b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a.json"])


def test_temporaries_come_newest_first(tmp_path):
    path = str(tmp_path / "a")
    for age, token in enumerate(["00000000", "22222222", "11111111"]):
        name = files.temporary_name(path, token)
        files.open_temporary(path, token).close()
        os.utime(name, ns=(0, 10**9 * (10 - age)))
    assert [token for _, token in files.temporaries(path)] == ["00000000", "22222222", "11111111"]


def test_a_temporary_file_is_never_shared(tmp_path):
    path = str(tmp_path / "a")
    files.open_temporary(path, "00000000").close()
    with pytest.raises(FileExistsError):
        files.open_temporary(path, "00000000")


def test_missing_folders_are_made(tmp_path):
    files.make_directory(str(tmp_path / "a" / "b" / "c"))
    files.make_directory(str(tmp_path / "a" / "b" / "c"))
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a"):
        files.make_directory(str(tmp_path / "a" / "b"))


def test_a_relative_path_without_a_folder_is_in_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_text("a", "1")
    files.write_text("a", "2")
    assert os.listdir(tmp_path) == ["a"]


def test_removing_what_is_not_there_is_no_error(tmp_path):
    files.remove(str(tmp_path / "a"))
