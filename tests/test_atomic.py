"""A file is written whole or not at all, and what goes wrong is told in the name that was asked for."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import stat
import threading
import time

import pytest

from nearfar.support import files

OLD = "what was there"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(OLD)
    return path


def untouched(target):
    return target.read_text() == OLD and list(target.parent.iterdir()) == [target]


def test_folders_are_made_and_the_file_can_be_read_by_others(tmp_path):
    path = files.atomic_write(tmp_path / "new" / "scores.csv", "größer")
    assert path.read_bytes() == "größer".encode()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_way_is_named_and_not_a_temporary_one(target):
    with pytest.raises(NotADirectoryError) as error:
        files.atomic_write(target / "below.csv", "x")
    assert error.value.filename == str(target / "below.csv")
    folder = target.parent / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as error:
        files.atomic_write(folder, "x")
    assert error.value.filename == str(folder)


def test_a_write_that_the_disk_refuses_leaves_what_was_there(target):
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            files.atomic_write(target, b"x" * (1 << 17))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.filename == str(target)
    assert untouched(target)


def test_a_full_disk_leaves_what_was_there_and_says_so(small_disk):
    target = small_disk / "scores.csv"
    target.write_text(OLD)
    with pytest.raises(OSError, match="No space left") as error:
        files.atomic_write(target, b"x" * (1 << 17))
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(target))
    assert untouched(target)


def test_an_interruption_leaves_what_was_there(target, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(target, "new")
    assert untouched(target)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    for text in ("first", "second"):
        with files.atomic_folder(tmp_path / "model") as draft:
            (draft / "card.md").write_text(text)
        assert (tmp_path / "model" / "card.md").read_text() == text
        assert names(tmp_path) == ["model"]
        assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("moves", [0, 1])  # before the old folder is moved away, and after
@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError(errno.EPERM, "Operation not permitted")])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, moves, error):
    with files.atomic_folder(tmp_path / "model") as draft:
        (draft / "card.md").write_text(OLD)
    replace, calls = files.Path.replace, []

    def failing(self, target):
        calls.append(target)
        if len(calls) == moves + 1:
            raise error
        return replace(self, target)

    monkeypatch.setattr(files.Path, "replace", failing)
    with pytest.raises((KeyboardInterrupt, OSError)), files.atomic_folder(tmp_path / "model") as draft:
        (draft / "card.md").write_text("new")
    assert (tmp_path / "model" / "card.md").read_text() == OLD
    assert names(tmp_path) == ["model"]


def test_an_error_about_another_file_keeps_its_name(target):
    with pytest.raises(FileNotFoundError) as error, files.atomic_file(target):
        (target.parent / "gone").read_bytes()
    assert error.value.filename == str(target.parent / "gone")
    assert untouched(target)


def test_a_hash_is_read_again_only_when_the_file_is_another(target, monkeypatch):
    read, hash_file = [], files.hash_file
    monkeypatch.setattr(files, "hash_file", lambda path: read.append(path) or hash_file(path))

    def hashes(age_s):
        then = time.time() - age_s
        os.utime(target, (then, then))
        read.clear()
        return [files.sha256_of(target) for _ in range(2)], len(read)

    old = hashlib.sha256(OLD.encode()).hexdigest()
    assert hashes(60) == ([old, old], 1)
    assert hashes(0) == ([old, old], 2)  # too young: it may change within the resolution of its time stamp
    files.atomic_write(target, "x" * len(OLD))
    assert hashes(60)[0] == [hashlib.sha256(b"x" * len(OLD)).hexdigest()] * 2
    assert hash_file(target, "md5") == hashlib.md5(b"x" * len(OLD)).hexdigest()


def test_a_pipe_and_a_device_are_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    files.atomic_write(pipe, "a,b\n")
    reader.join(60)
    assert got == [b"a,b\n"] and stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OSError, match="/dev/full"):
        files.atomic_write("/dev/full", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipe"]


def test_a_link_is_followed_and_the_mode_of_a_file_stays(tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "a.csv", tmp_path / "link.csv"
    link.symlink_to(real)
    files.atomic_write(link, "first")
    real.chmod(0o640)
    files.atomic_write(link, "second")
    assert link.is_symlink() and real.read_text() == "second" and stat.S_IMODE(real.stat().st_mode) == 0o640
    (tmp_path / "folder").symlink_to(tmp_path / "real-folder")
    with files.atomic_folder(tmp_path / "folder") as draft:
        (draft / "x").write_text("x")
    assert (tmp_path / "folder").is_symlink() and (tmp_path / "real-folder" / "x").read_text() == "x"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_new_files_and_folders_are_as_open_as_the_umask_allows_and_old_ones_keep_their_modes(tmp_path, umask):
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o750)
    (kept / "a").touch(mode=0o640)
    kept.chmod(0o750)
    (kept / "a").chmod(0o640)
    old = os.umask(umask)
    try:
        files.atomic_write(tmp_path / "new.csv", "x")
        for folder in (kept, tmp_path / "new"):
            with files.atomic_folder(folder) as draft:
                (draft / "a").write_text("x")
    finally:
        os.umask(old)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("new.csv", "new", "new/a", "kept", "kept/a")]
    assert modes == [0o666 & ~umask & 0o644, 0o777 & ~umask, 0o666 & ~umask, 0o750, 0o640]


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "\N{BELL}" * 62 + ".csv"])
def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path, name):
    assert files.atomic_write(tmp_path / name, "x").read_text() == "x"
    with files.atomic_folder(tmp_path / name.replace("csv", "dir")) as draft:
        (draft / "a").touch()
