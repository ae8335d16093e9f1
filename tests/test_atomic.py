"""A file is written whole or not at all, and what goes wrong is told in the name that was asked for."""

from __future__ import annotations

import errno
import resource
import signal

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
    path = files.write(tmp_path / "new" / "scores.csv", "größer")
    assert path.read_bytes() == "größer".encode()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_way_is_named_and_not_a_temporary_one(target):
    with pytest.raises(NotADirectoryError) as error:
        files.write(target / "below.csv", "x")
    assert error.value.filename == str(target / "below.csv")
    folder = target.parent / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as error:
        files.write(folder, "x")
    assert error.value.filename == str(folder)


def test_a_write_that_the_disk_refuses_leaves_what_was_there(target):
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            files.write(target, b"x" * (1 << 17))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.filename == str(target)
    assert untouched(target)


def test_a_full_disk_leaves_what_was_there_and_says_so(small_disk):
    target = small_disk / "scores.csv"
    target.write_text(OLD)
    with pytest.raises(OSError, match="No space left") as error:
        files.write(target, b"x" * (1 << 17))
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(target))
    assert untouched(target)


def test_an_interruption_leaves_what_was_there(target, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(target, "new")
    assert untouched(target)
