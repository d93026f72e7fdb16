"""The file of a checkpoint: what is written is read, and nothing else is."""

import collections
import enum
import hashlib
import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.model_saver.checkpoint_file import (
    CheckpointError,
    checksum_of,
    has_checksum,
    read_checkpoint,
    write_checkpoint,
)

STATE = {
    "Policy": {"weight": torch.arange(12.0).reshape(3, 4), "mask": torch.tensor([True, False])},
    "random": {"numpy": np.random.RandomState(3).get_state(), "big": 2**127 + 1},
    "plain": [1, -2.5, None, "text", (3, "x"), True, float("inf")],
    "arrays": [np.zeros((0, 3), dtype=np.float32), np.array([[1, 2]], dtype=np.uint8), np.float64(0.1)],
}


def assert_same(one, other):
    if isinstance(one, np.generic):
        one = one.item()
    assert type(one) is type(other)
    if isinstance(one, (torch.Tensor, np.ndarray)):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert bool((one == other).all())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for here, there in zip(one, other):
            assert_same(here, there)
    else:
        assert one == other


def test_what_is_written_is_read(tmp_path):
    write_checkpoint(tmp_path / "a.pt", STATE)
    assert_same(STATE, read_checkpoint(tmp_path / "a.pt"))


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
arrays = st.builds(np.array, st.lists(st.floats(allow_nan=False), max_size=4)) | st.builds(
    lambda numbers: np.array(numbers, dtype=np.int32), st.lists(st.integers(-9, 9), max_size=4)
)
plain = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text(max_size=9), plain, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_plain_state_is_read_back(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("plain") / "a.pt"
    write_checkpoint(path, state)
    assert_same(state, read_checkpoint(path))


def test_others_that_read_files_of_torch_read_these(tmp_path):
    write_checkpoint(tmp_path / "a.pt", STATE)
    read = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(read["Policy"]["weight"], STATE["Policy"]["weight"])


def test_a_copy_has_the_same_checksum_and_another_state_another_one(tmp_path):
    checksum = write_checkpoint(tmp_path / "a.pt", STATE)
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    assert checksum_of(tmp_path / "a.pt") == checksum_of(tmp_path / "b.pt") == checksum
    assert write_checkpoint(tmp_path / "c.pt", {**STATE, "more": 1}) != checksum
    assert checksum_of(tmp_path / "none.pt") is None
    torch.save(STATE, tmp_path / "plain.pt")
    assert not has_checksum(tmp_path / "plain.pt")


def test_every_damaged_byte_and_every_cut_is_noticed(tmp_path):
    write_checkpoint(tmp_path / "a.pt", {"Policy": {"weight": torch.arange(5.0)}, "steps": 3})
    whole, rng = (tmp_path / "a.pt").read_bytes(), random.Random(1)
    path = tmp_path / "damaged.pt"
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged\.pt"):
            read_checkpoint(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"damaged\.pt"):
            read_checkpoint(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        read_checkpoint(path)


def test_damaged_entries_of_files_without_a_checksum_are_noticed(tmp_path, data_path):
    whole = bytearray((data_path / "golden" / "ppo_vector.pt").read_bytes())
    weights = read_checkpoint(data_path / "golden" / "ppo_vector.pt")["Policy"]
    numbers = weights["network_body._body_endoder.seq_layers.2.weight"].numpy().tobytes()
    place = bytes(whole).index(numbers)
    whole[place + 40] ^= 4
    (tmp_path / "a.pt").write_bytes(whole)
    with pytest.raises(CheckpointError, match="could not be read as a checkpoint"):
        read_checkpoint(tmp_path / "a.pt")


class Bomb:
    """What runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


Point = collections.namedtuple("Point", "x y")


def test_containers_of_other_kinds_are_read_back_as_plain_ones(tmp_path):
    numbers = np.arange(3)
    state = {
        "counts": collections.defaultdict(int, {"a": 1}),
        "point": Point(1, numbers),
        "ordered": collections.OrderedDict(numbers=numbers, nested=[numbers]),
    }
    write_checkpoint(tmp_path / "a.pt", state)
    read = read_checkpoint(tmp_path / "a.pt")
    assert (type(read["counts"]), read["counts"]) == (dict, {"a": 1})
    assert (type(read["point"]), read["point"][0]) == (tuple, 1)
    for array in (read["point"][1], read["ordered"]["numbers"], read["ordered"]["nested"][0]):
        np.testing.assert_array_equal(array, numbers)


@pytest.mark.parametrize(
    "value",
    [collections.deque([1]), {1, 2}, Path("a"), signal.SIGTERM, np.array(["text"]), np.array([None]), Bomb("a")],
)
def test_what_could_not_be_read_back_is_refused_when_it_is_written(tmp_path, value):
    with pytest.raises(UnityTrainerException, match=r"own part, values, 1: a .* cannot be part of a checkpoint"):
        write_checkpoint(tmp_path / "a.pt", {"own part": {"values": [0, value]}})
    assert list(tmp_path.iterdir()) == []


class Kind(enum.Enum):
    ONE = 1


def test_keys_are_no_exception(tmp_path):
    for mapping in ({Kind.ONE: 1}, collections.OrderedDict({Kind.ONE: 1})):
        with pytest.raises(UnityTrainerException, match="part: a Kind cannot be part of a checkpoint"):
            write_checkpoint(tmp_path / "a.pt", {"part": mapping})
    write_checkpoint(tmp_path / "a.pt", {"part": collections.OrderedDict({np.int64(3): 1})})
    assert read_checkpoint(tmp_path / "a.pt")["part"] == {3: 1}


def test_what_contains_itself_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    with pytest.raises(UnityTrainerException, match="contains itself"):
        write_checkpoint(tmp_path / "a.pt", {"part": endless})


def test_tensors_of_other_classes_are_read_back_as_plain_ones(tmp_path):
    class Own(torch.Tensor):
        pass

    with_attribute = torch.nn.Parameter(torch.ones(2))
    with_attribute.note = Path("a")
    state = {"own": torch.ones(2).as_subclass(Own), "noted": with_attribute, "big endian": np.ones(2, dtype=">f4")}
    write_checkpoint(tmp_path / "a.pt", state)
    for value in read_checkpoint(tmp_path / "a.pt").values():
        np.testing.assert_array_equal(np.asarray(value), np.ones(2))


def test_without_links_the_one_before_is_kept_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    for number in range(2):
        write_checkpoint(tmp_path / "a.pt", {"number": number}, tmp_path / "b.pt")
    assert [read_checkpoint(tmp_path / name)["number"] for name in ("a.pt", "b.pt")] == [1, 0]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_sealed_file_cannot_run_code_either(tmp_path):
    write_checkpoint(tmp_path / "a.pt", {"Policy": 0})
    torch.save({"Policy": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    archive, seal = (tmp_path / "bomb.pt").read_bytes()[:-2], (tmp_path / "a.pt").read_bytes()[-80:-64]
    archive += struct.pack("<H", 80)
    sealed = archive + seal + hashlib.sha256(archive).hexdigest().encode()
    (tmp_path / "a.pt").write_bytes(sealed)
    with pytest.raises(CheckpointError, match=r"could not be read as a checkpoint: it holds \w+\.system, which is no"):
        read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_the_one_before_is_kept(tmp_path):
    newest, previous = tmp_path / "a.pt", tmp_path / "previous.pt"
    for number in range(3):
        write_checkpoint(newest, {"number": number}, previous)
        assert previous.exists() == (number > 0)
    assert read_checkpoint(newest) == {"number": 2}
    assert read_checkpoint(previous) == {"number": 1}


WRITE_ON_A_FULL_DISK = """
import resource, sys
import torch
from mlagents.trainers.model_saver.checkpoint_file import write_checkpoint

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_checkpoint(sys.argv[1], {"weight": torch.zeros(10_000)}, sys.argv[2])
except OSError as error:
    print("refused:", error.strerror)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    newest, previous = tmp_path / "a.pt", tmp_path / "previous.pt"
    for number in range(2):
        write_checkpoint(newest, {"number": number}, previous)
    command = [sys.executable, "-c", WRITE_ON_A_FULL_DISK, str(newest), str(previous)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "refused: File too large" in done.stdout
    assert read_checkpoint(newest) == {"number": 1}
    assert read_checkpoint(previous) == {"number": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "previous.pt"]
