"""What is kept: features come back as they were or not at all, and memory stays below its bound."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.scoring import Truth


def features(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = {"low": (2, 6), "mid": (3, 3), "high": (4, 3)}
    return {name: torch.randn(c, n, n, generator=generator).half() for name, (c, n) in sides.items()}


def equal(found, expected) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_put_is_found_by_every_store_of_the_folder(tmp_path):
    store = FeatureStore(tmp_path / "a" / "b", 10**6)
    assert "one" not in store
    assert store.get("one") is None
    store.put("one", features(1))
    store.put("two", features(2))
    for other in (store, FeatureStore(tmp_path / "a" / "b", 10**6)):
        assert "one" in other
        assert equal(other.get("one"), features(1))
        assert equal(other.get("two"), features(2))
        assert {v.dtype for v in other.get("one").values()} == {torch.float16}
        assert other.get("three") is None


def test_the_last_one_put_stays(tmp_path):
    store = FeatureStore(tmp_path, 10**6)
    store.put("one", features(1))
    before = store.get("one")
    store.put("one", features(2))
    assert equal(store.get("one"), features(2))
    assert equal(before, features(1))  # what was read does not change with the file


def test_a_part_of_a_batch_is_stored_alone(tmp_path):
    """Views into a larger tensor, turned or not, are written as what they show."""
    batch = torch.arange(24.0).reshape(2, 3, 2, 2).half()
    store = FeatureStore(tmp_path, 10**6)
    store.put("view", {"high": batch[1], "mid": batch[0].permute(2, 1, 0)})
    assert equal(store.get("view"), {"high": batch[1], "mid": batch[0].permute(2, 1, 0)})
    assert (tmp_path / "view.features").stat().st_size < 24 * 2 + 200


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_counts_as_absent(tmp_path, share):
    store = FeatureStore(tmp_path, 10**6)
    store.put("one", features())
    path = tmp_path / "one.features"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert store.get("one") is None
    store.put("one", features())
    assert path.read_bytes() == whole


@pytest.mark.parametrize("place", [0, 40, 200, -1])
def test_a_file_of_which_one_bit_flipped_counts_as_absent_and_goes(tmp_path, place, caplog):
    store = FeatureStore(tmp_path, 10**6)
    store.put("one", features())
    path = tmp_path / "one.features"
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    assert store.get("one") is None
    assert f"{path} is damaged" in caplog.text
    assert "one" not in store


@pytest.mark.parametrize("data", [b"", b"\xff" * 300, b"\x00" * 300, b"no features at all"])
def test_other_files_count_as_absent(tmp_path, data):
    (tmp_path / "one.features").write_bytes(data)
    assert FeatureStore(tmp_path, 10**6).get("one") is None


def test_a_full_store_keeps_nothing_more(tmp_path):
    FeatureStore(tmp_path / "other", 10**6).put("one", features())
    size = (tmp_path / "other" / "one.features").stat().st_size
    store = FeatureStore(tmp_path / "full", 2 * size)
    for name in ("one", "two", "three"):
        store.put(name, features())
    assert sorted(os.listdir(tmp_path / "full")) == ["one.features", "two.features"]
    assert store.get("three") is None
    assert equal(store.get("one"), features())
    again = FeatureStore(tmp_path / "full", 2 * size)  # what lies there already counts
    again.put("three", features())
    assert "three" not in again
    larger = FeatureStore(tmp_path / "full", 3 * size)
    larger.put("three", features())
    assert "three" in larger


def test_others_may_rename_their_files_while_a_store_opens(tmp_path, monkeypatch):
    FeatureStore(tmp_path, 10**6).put("one", features())
    size, scan = (tmp_path / "one.features").stat().st_size, os.scandir
    (tmp_path / ".temporary").write_bytes(b"half of it")

    def scan_and_rename(folder):
        entries = list(scan(folder))
        (tmp_path / ".temporary").unlink()
        return entries

    monkeypatch.setattr("os.scandir", scan_and_rename)
    assert FeatureStore(tmp_path, 10**6).room == 10**6 - size


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FeatureStore(None, 10**6)
    store.put("one", features())
    assert "one" not in store
    assert store.get("one") is None
    assert os.listdir(tmp_path) == []


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    """Wherever writing stops: neither a file nor a temporary one is left, and the store asks the disk no more."""
    store = FeatureStore(tmp_path, 10**6)
    seen = []

    def full(path, target):
        seen.append((path.parent, os.listdir(tmp_path), target.name))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", full)
        store.put("one", features())
    ((parent, names, target),) = seen
    assert parent == tmp_path  # one file system, so that the renaming is atomic
    assert len(names) == 1
    assert target == "one.features"
    assert target not in names
    assert os.listdir(tmp_path) == []
    store.put("two", features())
    assert os.listdir(tmp_path) == []
    FeatureStore(tmp_path, 10**6).put("two", features())
    assert os.listdir(tmp_path) == ["two.features"]


def block(kilobytes: int) -> np.ndarray:
    return np.zeros(1000 * kilobytes, np.uint8)


def test_what_was_dear_for_its_size_stays(monkeypatch):
    """Seconds are a clock of our own: each value's making takes as long as it says."""
    clock = [0.0]
    monkeypatch.setattr("fss.evaluation.cache.time.perf_counter", lambda: clock[0])
    memory, made = Memory(10_000), []

    def get(key, kilobytes, seconds=1.0):
        def make():
            clock[0] += seconds
            made.append(key)
            return block(kilobytes)

        return memory.get(key, make)

    dear = get("dear", 1, seconds=100)
    for key in "abcdefgh":
        get(key, 4)
        assert "dear" in memory
        assert memory.bytes <= 10_000
    assert get("dear", 1) is dear
    assert made == ["dear", *"abcdefgh"]
    assert "h" in memory  # the newest of equals
    assert "a" not in memory
    get("h", 4)
    get("i", 4)
    assert "h" in memory  # used since
    for number in range(4000):  # whatever nobody asks for goes in the end
        get(number, 4)
    assert "dear" not in memory
    assert len(get("huge", 11)) == 11_000  # larger than everything: given, not kept
    assert "huge" not in memory


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 12))
def test_values_are_right_and_bytes_below_the_bound_whatever_is_asked(keys, capacity):
    memory = Memory(1000 * capacity)
    for key in keys:
        assert len(memory.get(key, lambda key=key: block(key))) == 1000 * key
        assert memory.bytes <= 1000 * capacity
        assert memory.bytes == sum(kept.size for kept in memory._kept.values())


def test_values_of_all_kinds_are_measured():
    """Tensors by what they hold in memory, a view by all that it keeps from being freed."""
    large = torch.zeros(10, 100)
    for value, size in (
        (large, 4000),
        (large[:1], 4000),
        ({"tokens": torch.zeros(50).half(), "walk": torch.zeros(2, 10)}, 180),
        ((np.zeros(10), [np.zeros(3, np.uint8)]), 83),
        (Truth.of(np.zeros((5, 5), np.uint8), 2), 100),
    ):
        memory = Memory(10**6)
        assert memory.get("key", lambda value=value: value) is value
        assert memory.bytes == size


def test_making_one_value_may_ask_for_another():
    memory = Memory(10_000)

    def outer():
        return memory.get("inner", lambda: block(2))[:1000].copy()

    found = memory.get("outer", outer)
    assert (len(found), len(memory), memory.bytes) == (1000, 2, 3000)
