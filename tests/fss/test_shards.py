"""Shards: the same bytes for the same samples, readable by WebDataset, and nothing unsafe or damaged gets through."""

import io
import random
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fss import shards

SAMPLES = [
    ("a0", {"jpg": b"\xff\xd8 one", "json": b"{}"}),
    ("b_1", {"jpg": b"two", "seg.png": b"x" * 700, "json": b""}),
]


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_was_packed_comes_back_in_order():
    assert list(shards.unpack(shards.pack(SAMPLES))) == SAMPLES
    assert list(shards.unpack(shards.pack([]))) == []


def test_equal_samples_give_equal_bytes_without_times_or_owners():
    data = shards.pack(SAMPLES)
    assert data == shards.pack(iter(SAMPLES))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


KEYS = st.text("abz019_", min_size=1, max_size=6)
MEMBERS = st.dictionaries(st.sampled_from(["jpg", "png", "json", "seg.png"]), st.binary(max_size=1200), min_size=1)


@settings(max_examples=25)
@given(st.dictionaries(KEYS, MEMBERS, max_size=4))
def test_any_samples_come_back(samples):
    assert list(shards.unpack(shards.pack(samples.items()))) == list(samples.items())


@settings(max_examples=25)
@given(st.dictionaries(KEYS, MEMBERS, max_size=24))
def test_the_bytes_are_tarfiles(samples):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert shards.pack(samples.items()) == buffer.getvalue()


def test_pack_refuses_what_no_header_holds():
    whole = "k" * 96
    assert list(shards.unpack(shards.pack([(whole, {"jpg": b"1"})]))) == [(whole, {"jpg": b"1"})]
    with pytest.raises(ValueError, match=r"expected names of up to 100 characters and less than 8 GiB, got 'kk"):
        shards.pack([(whole + "k", {"jpg": b"1"})])


def test_webdataset_reads_the_result(tmp_path):
    path = tmp_path / "part-00000.tar"
    path.write_bytes(shards.pack(SAMPLES))
    state = random.getstate()  # WebDataset seeds the generator of the process
    read = list(webdataset.WebDataset(str(path), shardshuffle=False))
    random.setstate(state)
    assert [(s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")}) for s in read] == SAMPLES


@pytest.mark.parametrize("key", ["", "A", "a/b", "../a", "a.b", "ä", "a b"])
def test_pack_refuses_keys_that_are_not_plain(key):
    with pytest.raises(ValueError, match=r"expected a new key of \[0-9a-z_\]\+, got "):
        shards.pack([(key, {"jpg": b""})])


def test_pack_refuses_a_key_twice():
    with pytest.raises(ValueError, match="got 'a0' again"):
        shards.pack([SAMPLES[0], SAMPLES[0]])


@pytest.mark.parametrize(
    "member",
    [
        ("../x.jpg", b"1"),
        ("/etc/x.jpg", b"1"),
        ("folder/x.jpg", b"1"),
        ("X.jpg", b"1"),
        ("noextension", b"1"),
        (".jpg", b"1"),
        special("x.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("x.jpg", tarfile.LNKTYPE, "a0.jpg"),
        special("x.jpg", tarfile.CHRTYPE),
        special("x.jpg", tarfile.FIFOTYPE),
        special("x", tarfile.DIRTYPE),
    ],
    ids=lambda m: m[0] if isinstance(m, tuple) else f"type {m.type.decode()}",
)
def test_unsafe_members_are_refused(member):
    with pytest.raises(ValueError, match=r"expected ordinary members named key\.extension, got"):
        list(shards.unpack(tar_of(("a.jpg", b"fine"), member)))


def test_a_key_that_comes_back_later_is_refused():
    data = tar_of(("a.jpg", b"1"), ("b.jpg", b"2"), ("a.json", b"3"))
    with pytest.raises(ValueError, match="members of sample 'a' are not next to each other"):
        list(shards.unpack(data))


def test_a_member_twice_is_refused():
    with pytest.raises(ValueError, match=r"'a\.jpg' .*twice"):
        list(shards.unpack(tar_of(("a.jpg", b"1"), ("a.jpg", b"2"))))


def test_every_truncation_is_noticed():
    """A shard cut anywhere before its end mark must not pass for a shorter one."""
    data = shards.pack(SAMPLES)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.getmembers()
        end = tar.offset
    for length in [0, 1, 100, 511, *range(512, end + 1024, 128)]:
        with pytest.raises(ValueError, match="expected a whole tar of samples, got a damaged one"):
            list(shards.unpack(data[:length]))
    assert list(shards.unpack(data[: end + 1024])) == SAMPLES


@pytest.mark.parametrize("sample", [0, 1])
def test_a_damaged_header_is_noticed(sample):
    data = bytearray(shards.pack([("a", {"jpg": b"1"}), ("b", {"jpg": b"2"})]))
    data[sample * 1024 + 20] ^= 0xFF
    with pytest.raises(ValueError, match="expected a whole tar of samples, got a damaged one"):
        list(shards.unpack(bytes(data)))


@pytest.mark.parametrize("data", [b"not a tar", b"\x1f\x8b" + bytes(600), b"PK\x03\x04" + bytes(2000)])
def test_other_files_are_refused(data):
    with pytest.raises(ValueError, match="expected a whole tar of samples, got a damaged one"):
        list(shards.unpack(data))


def test_json_bytes_do_not_depend_on_order():
    assert shards.dumps({"b": 1, "a": "ä"}) == shards.dumps({"a": "ä", "b": 1}) == '{"a":"ä","b":1}'.encode()


def test_sha256_by_hand():
    assert shards.sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
