"""A disk that remembers what was flushed, to see what a power cut may leave.

A recorder replaces the functions of `minilstm.files`, does what they do, and keeps account of what the disk may
forget: the content of a file until the file is flushed, and the creation, renaming and removal of names until the
folder is flushed. After every call, `Disk.outcomes` gives the folders a power cut at this moment may leave: any subset
of the unflushed changes of names, and unflushed files whole, half or empty.
"""

from __future__ import annotations

import itertools
import os

from minilstm import files

CALLS = ["open_temporary", "write", "fsync_file", "replace", "remove", "fsync_directory"]


class Intercepted:
    """An open file whose writes are calls of ``write(file, data)``."""

    def __init__(self, file, write):
        self.file, self.call = file, write

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.call(self.file, data)

    def writelines(self, pieces):
        for piece in pieces:
            self.write(piece)


def original(name):
    """What one of `CALLS` does unless it is replaced."""
    return getattr(files, name) if name != "write" else lambda file, data: file.write(data)


def replace_calls(patch, calls):
    """Replace functions of `files` by those in a dict; ``write`` is that of the files that ``open_temporary`` opens."""
    for name in calls.keys() - {"write"}:
        patch.setattr(files, name, calls[name])
    if "write" in calls:
        opened = files.open_temporary
        patch.setattr(files, "open_temporary", lambda *args: Intercepted(opened(*args), calls["write"]))


def by_age(folder):
    """The names and contents of the files in a folder, the oldest first."""
    names = sorted(os.listdir(folder), key=lambda name: (folder / name).stat().st_mtime_ns)
    return {name: (folder / name).read_bytes() for name in names}


def lay_out(folder, contents):
    """Make a folder hold just these files, each younger than the one before it."""
    folder.mkdir(exist_ok=True)
    for name in os.listdir(folder):
        (folder / name).unlink()
    for age, (name, content) in enumerate(contents.items()):
        (folder / name).write_bytes(content)
        os.utime(folder / name, (age, age))


class Disk:
    """What is in one folder, safely or not."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.content = by_age(folder)  # file -> what was written to it
        self.names = {name: name for name in self.content}  # safe: name -> file
        self.flushed = set(self.content)  # files whose content is safe
        self.pending = []  # changes of names, in order: (old name or None, new name or None)

    def outcomes(self):
        """Every folder a power cut may leave, as a dict of name to content, the oldest file first."""
        ages = {file: age for age, file in enumerate(self.content)}
        for chosen in itertools.product([True, False], repeat=len(self.pending)):
            names = dict(self.names)
            for (old, new), happened in zip(self.pending, chosen, strict=True):
                if not happened:
                    continue
                file = names.pop(old, None) if old is not None else new
                if new is not None and file is not None:
                    names[new] = file
            for share in (1, 0.5, 0):
                yield {
                    name: content if file in self.flushed else content[: int(share * len(content))]
                    for name, file in sorted(names.items(), key=lambda item: ages[item[1]])
                    for content in [self.content[file]]
                }

    def calls(self, cut):
        """Replacements for `CALLS`; `cut(name)` is called after each."""

        def base(path):
            folder, name = os.path.split(path)
            assert folder == self.folder, "everything happens in one folder"
            return name

        def open_temporary(path, token, original=files.open_temporary):
            file = original(path, token)
            name = base(file.name)
            self.content[name] = b""
            self.pending.append((None, name))
            return file

        def write(file, data):
            file.write(data)
            name = base(file.name)
            self.content[name] += bytes(data)
            self.flushed.discard(name)

        def fsync_file(file, original=files.fsync_file):
            original(file)
            self.flushed.add(base(file.name))

        def replace(source, target, original=files.replace):
            original(source, target)
            self.pending.append((base(source), base(target)))

        def remove(path, original=files.remove):
            original(path)
            self.pending.append((base(path), None))

        def fsync_directory(path, original=files.fsync_directory):
            original(path)
            assert path == self.folder
            for old, new in self.pending:
                file = self.names.pop(old, None) if old is not None else new
                if new is not None:
                    self.names[new] = file
            self.pending = []

        def recorded(function):
            def call(*args):
                result = function(*args)
                cut(function.__name__, *args)
                return result

            return call

        functions = (open_temporary, write, fsync_file, replace, remove, fsync_directory)
        return {function.__name__: recorded(function) for function in functions}
