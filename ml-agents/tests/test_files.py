"""Atomic writing: the whole of the new file, or the old one as it was, and nothing else."""

import os
import stat
import sys
from pathlib import Path

import pytest

from mlagents.trainers.files import atomic_path, write_text_atomically


def write(path, text):
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def test_a_new_file_is_written_with_its_folders(tmp_path):
    target = tmp_path / "results" / "run" / "status.json"
    write(target, "new")
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["status.json"]


def test_an_old_file_is_replaced(tmp_path):
    target = tmp_path / "status.json"
    target.write_text("old, and longer than the new one")
    write(str(target), "new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["status.json"]


def test_until_the_block_ends_the_old_file_stands(tmp_path):
    target = tmp_path / "status.json"
    target.write_text("old")
    with atomic_path(target) as temporary:
        Path(temporary).write_text("new")
        assert target.read_text() == "old"
        assert Path(temporary).parent == tmp_path  # a rename across file systems would be a copy
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    target = tmp_path / "status.json"
    target.write_text("old")

    def fail_half_way():
        with atomic_path(target) as temporary:
            Path(temporary).write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_failure_leaves_no_new_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with atomic_path(tmp_path / "status.json"):
            _ = 1 / 0
    assert os.listdir(tmp_path) == []


def test_a_target_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "status.json"
    (target / "a folder in its place").mkdir(parents=True)
    with pytest.raises(OSError):
        write(target, "new")
    assert os.listdir(tmp_path) == ["status.json"]
    assert target.is_dir()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / "status.json"
    with atomic_path(target) as first, atomic_path(target) as second:
        Path(first).write_text("first")
        Path(second).write_text("second")
    assert target.read_text() == "first"  # its block ends last
    assert os.listdir(tmp_path) == ["status.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
@pytest.mark.parametrize(("umask", "permissions"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_file_has_the_permissions_of_any_new_file(tmp_path, umask, permissions):
    target = tmp_path / "status.json"
    target.write_text("old")
    before = os.umask(umask)
    try:
        write(target, "new")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == permissions


def test_text_is_written_as_utf_8(tmp_path):
    target = tmp_path / "configuration.yaml"
    write_text_atomically(target, "grün\n")
    assert target.read_bytes() == "grün\n".encode()
