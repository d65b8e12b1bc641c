"""The state of a folder: what is kept, what is removed, what is latest, and paths that lead elsewhere."""

from __future__ import annotations

import os
import shutil

import pytest
from bundle_samples import CHECKPOINTS, FOLDERS, prefix_of

from minilstm import tensorbundle
from minilstm.tensorbundle import CheckpointError
from minilstm.tensorbundle.state import read_state


def save(prefix, value=0.0, **options):
    tensorbundle.write(prefix, {"step": value})
    tensorbundle.publish(prefix, **options)


def steps(folder):
    """The steps of which there are files, and those the state file names."""
    there = sorted(int(name.split("-")[1].split(".")[0]) for name in os.listdir(folder) if name.endswith(".index"))
    return there, [int(path.rpartition("-")[2]) for path in read_state(folder).all_model_checkpoint_paths]


def test_five_saves_with_three_kept_are_what_tensorflow_leaves(tmp_path):
    for step in (10, 20, 30, 40, 50):
        save(tmp_path / f"run.ckpt-{step}", max_to_keep=3)
    assert (tmp_path / "checkpoint").read_bytes() == (CHECKPOINTS / "history" / "checkpoint").read_bytes()
    golden = set(os.listdir(CHECKPOINTS / "history")) - {"manifest.json", "values.npz"}
    assert set(os.listdir(tmp_path)) == golden


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_latest_checkpoint_of_tensorflows_folders(folder):
    assert tensorbundle.latest(CHECKPOINTS / folder) == str(prefix_of(folder))
    assert tensorbundle.all_checkpoints(CHECKPOINTS / folder)[-1] == str(prefix_of(folder))


def test_all_checkpoints_are_listed_oldest_first():
    listed = tensorbundle.all_checkpoints(CHECKPOINTS / "history")
    assert [os.path.basename(prefix) for prefix in listed] == ["run.ckpt-30", "run.ckpt-40", "run.ckpt-50"]


@pytest.mark.parametrize(("max_to_keep", "kept"), [(1, [5]), (2, [4, 5]), (5, [1, 2, 3, 4, 5]), (9, [1, 2, 3, 4, 5])])
def test_so_many_are_kept(tmp_path, max_to_keep, kept):
    for step in range(1, 6):
        save(tmp_path / f"m-{step}", max_to_keep=max_to_keep)
    assert steps(tmp_path) == (kept, kept)


@pytest.mark.parametrize("max_to_keep", [0, None])
def test_all_are_kept_and_the_latest_is_listed(tmp_path, max_to_keep):
    for step in range(1, 4):
        save(tmp_path / f"m-{step}", max_to_keep=max_to_keep)
    assert steps(tmp_path) == ([1, 2, 3], [3])


def test_fewer_can_be_kept_from_now_on(tmp_path):
    for step in range(1, 5):
        save(tmp_path / f"m-{step}")
    save(tmp_path / "m-5", max_to_keep=2)
    assert steps(tmp_path) == ([4, 5], [4, 5])


def test_saving_again_moves_to_the_end(tmp_path):
    for step in (1, 2, 3, 2):
        save(tmp_path / f"m-{step}", max_to_keep=3)
    assert steps(tmp_path) == ([1, 2, 3], [1, 3, 2])
    assert tensorbundle.latest(tmp_path) == str(tmp_path / "m-2")


def test_checkpoints_of_another_name_are_neither_counted_nor_removed(tmp_path):
    save(tmp_path / "best", max_to_keep=1)
    save(tmp_path / "other-1", max_to_keep=1)
    for step in range(1, 4):
        save(tmp_path / f"m-{step}", max_to_keep=1)
    assert read_state(tmp_path).all_model_checkpoint_paths == ("best", "other-1", "m-3")
    assert len(tensorbundle.all_checkpoints(tmp_path)) == 3


def test_a_removed_checkpoint_leaves_nothing(tmp_path):
    save(tmp_path / "m-1")
    for name in ("m-1.meta", "m-1.data-00001-of-00002", "m-1.index.minilstm-01234567.tmp"):
        (tmp_path / name).write_text("")
    for name in ("m-1.txt", "m-10.index", "m-1.data", "am-1.index"):
        (tmp_path / name).write_text("")
    save(tmp_path / "m-2", max_to_keep=1)
    left = {"checkpoint", "m-2.index", "m-2.data-00000-of-00001", "m-1.txt", "m-10.index", "m-1.data", "am-1.index"}
    assert set(os.listdir(tmp_path)) == left


def test_what_somebody_removed_already_is_no_error(tmp_path):
    save(tmp_path / "m-1")
    os.remove(tmp_path / "m-1.index")
    os.remove(tmp_path / "m-1.data-00000-of-00001")
    save(tmp_path / "m-2", max_to_keep=1)
    assert steps(tmp_path) == ([2], [2])


@pytest.mark.parametrize("relative", [True, False])
def test_paths_are_written_relative_so_that_a_folder_can_be_moved(tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    save("runs/m-1" if relative else tmp_path / "runs" / "m-1")
    assert read_state("runs").model_checkpoint_path == "m-1"
    shutil.move("runs", "moved")
    assert tensorbundle.latest("moved") == os.path.join("moved", "m-1")


def test_the_current_folder_has_a_state_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("m-1")
    save("m-2", max_to_keep=1)
    assert tensorbundle.latest(".") == os.path.join(".", "m-2")
    assert tensorbundle.latest("") == "m-2"
    assert steps(".") == ([2], [2])


def test_names_with_odd_characters_come_back(tmp_path):
    save(tmp_path / "a \"b\" 'c' \\ é\n-1")
    assert tensorbundle.latest(tmp_path) == str(tmp_path / "a \"b\" 'c' \\ é\n-1")


def test_a_folder_without_a_state_file_has_no_latest_checkpoint(tmp_path):
    tensorbundle.write(tmp_path / "m-1", {"a": 1.0})
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "m-1.index"):
        assert tensorbundle.latest(folder) is None
        assert tensorbundle.all_checkpoints(folder) == []


class TestFallingBack:
    """The latest checkpoint that is whole; only other programs can have cut a later one short."""

    @pytest.fixture
    def folder(self, tmp_path):
        for step in range(1, 4):
            save(tmp_path / f"m-{step}")
        return tmp_path

    @pytest.mark.parametrize("name", ["m-3.index", "m-3.data-00000-of-00001"])
    def test_from_one_that_lacks_a_file(self, folder, name):
        os.remove(folder / name)
        assert tensorbundle.latest(folder) == str(folder / "m-2")
        assert tensorbundle.all_checkpoints(folder) == [str(folder / "m-1"), str(folder / "m-2")]

    @pytest.mark.parametrize("name", ["m-3.index", "m-3.data-00000-of-00001"])
    def test_from_one_that_is_truncated(self, folder, name):
        os.truncate(folder / name, 3)
        assert tensorbundle.latest(folder) == str(folder / "m-2")

    def test_until_nothing_is_left(self, folder):
        for step in range(1, 4):
            os.remove(folder / f"m-{step}.index")
        assert tensorbundle.latest(folder) is None


@pytest.mark.parametrize("max_to_keep", [-1, 1.5, "5"])
def test_how_many_to_keep_must_be_a_number(tmp_path, max_to_keep):
    tensorbundle.write(tmp_path / "m", {"a": 1.0})
    with pytest.raises(ValueError, match="publish: max_to_keep must be"):
        tensorbundle.publish(tmp_path / "m", max_to_keep=max_to_keep)
    assert not (tmp_path / "checkpoint").exists()


def test_what_is_not_there_cannot_be_published(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m\.index"):
        tensorbundle.publish(tmp_path / "m")


class TestHostileStateFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        save(tmp_path / "elsewhere" / "m-1")
        (tmp_path / "run").mkdir()
        return tmp_path / "run"

    def test_paths_outside_are_refused(self, folder):
        elsewhere = folder.parent / "elsewhere" / "m-1"
        os.symlink(folder.parent / "elsewhere", folder / "link")
        for path in ("../elsewhere/m-1", elsewhere, "a/../../elsewhere/m-1", "link/m-1", "..", ".", "", "/", "a\\000b"):
            for field in ("model_checkpoint_path", 'model_checkpoint_path: "m" all_model_checkpoint_paths'):
                (folder / "checkpoint").write_text(f'{field}: "{path}"\n')
                for use in (tensorbundle.latest, tensorbundle.all_checkpoints):
                    with pytest.raises(CheckpointError, match=r"checkpoint: it names .* not in this folder"):
                        use(folder)

    def test_nothing_outside_is_removed(self, folder):
        (folder / "checkpoint").write_text('model_checkpoint_path: "../elsewhere/m-1"\n')
        for step in range(2, 4):
            save(folder / f"m-{step}", max_to_keep=1)
        assert steps(folder) == ([3], [3])
        assert steps(folder.parent / "elsewhere")[0] == [1]

    def test_absolute_paths_inside_are_read(self, folder):
        save(folder / "m-1")
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{folder / "m-1"}"\n')
        assert tensorbundle.latest(folder) == str(folder / "m-1")
        os.symlink(folder, folder.parent / "alias")
        assert tensorbundle.latest(folder.parent / "alias") == str(folder.parent / "alias" / "m-1")
        save(folder / "m-2")
        assert read_state(folder).all_model_checkpoint_paths == ("m-1", "m-2")

    def test_paths_in_folders_below_are_read(self, folder):
        (folder / "sub").mkdir()
        save(folder / "sub" / "m-1")
        (folder / "checkpoint").write_text('model_checkpoint_path: "sub/m-1"\n')
        assert tensorbundle.latest(folder) == str(folder / "sub" / "m-1")

    @pytest.mark.parametrize("text", ["", "nonsense", "\0" * 100, 'model_checkpoint_path: "m'])
    def test_damaged_ones_are_refused_but_do_not_keep_anybody_from_saving(self, folder, text):
        (folder / "checkpoint").write_text(text)
        with pytest.raises(CheckpointError, match=r"checkpoint: "):
            tensorbundle.latest(folder)
        save(folder / "m-1")
        assert tensorbundle.latest(folder) == str(folder / "m-1")

    def test_huge_ones_are_refused(self, folder):
        (folder / "checkpoint").touch()
        os.truncate(folder / "checkpoint", 1 << 40)
        with pytest.raises(CheckpointError, match="more than any state file"):
            tensorbundle.latest(folder)

    def test_folders_in_their_place_are_refused(self, folder):
        (folder / "checkpoint").mkdir()
        with pytest.raises(CheckpointError, match="not a regular file"):
            tensorbundle.latest(folder)


def test_a_file_of_the_first_format_is_not_removed(tmp_path):
    """Any file could have that name; and a state file may be hostile."""
    (tmp_path / "m-1").write_bytes(b"mine")
    (tmp_path / "m-1.meta").write_bytes(b"mine, too")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m-1"\n')
    tensorbundle.write(tmp_path / "m-2", {"a": 1.0})
    tensorbundle.publish(tmp_path / "m-2", max_to_keep=1)
    assert (tmp_path / "m-1").read_bytes() == b"mine"
    assert (tmp_path / "m-1.meta").exists()
    assert tensorbundle.all_checkpoints(tmp_path) == [str(tmp_path / "m-2")]
