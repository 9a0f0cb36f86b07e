"""Tars, lists and object stores: every member and entry has a fate, damage costs what it damages and no more."""

import csv
import gzip
import io
import os
import socket
import subprocess
import sys
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.shard import tars
from cluster.shard.inputs import CorpusInput, LostError, fingerprint

IMAGES = {f"inner/{i}.jpg": bytes([i]) * (300 + 700 * i) for i in range(4)}


def tar_of(members, **options) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def taken(source):
    """{path: bytes} of what is not rejected, read as workers do, and [(path, error)] of the rest."""
    entries = list(source.entries())
    good = {e.path: source.read(e.path, e.offset, e.size) for e in entries if not e.error}
    return good, [(e.path, e.error) for e in entries if e.error]


def inside(tar, images=IMAGES):
    return {f"{tar}::{name}": data for name, data in images.items()}


def test_a_tar_a_pattern_and_a_folder_with_tars(tmp_path):
    (tmp_path / "loose.jpg").write_bytes(b"loose")
    for name in ("00", "01", "10"):
        (tmp_path / f"s-{name}.tar").write_bytes(tar_of({**IMAGES, "a.json": b"{}", "a.pkl": b"evil", "b.cls": b"1"}))
    assert taken(CorpusInput(f"{tmp_path}/s-00.tar")) == (inside("s-00.tar"), [])
    for pattern, names in {"s-{00..01}": ("00", "01"), "s-0?": ("00", "01"), "s-{01,10}": ("01", "10")}.items():
        expected = {k: v for name in names for k, v in inside(f"s-{name}.tar").items()}
        assert taken(CorpusInput(f"{tmp_path}/{pattern}.tar")) == (expected, []), pattern
    whole, rejected = taken(CorpusInput(str(tmp_path)))
    assert whole == {"loose.jpg": b"loose"} | {
        k: v for n in ("00", "01", "10") for k, v in inside(f"s-{n}.tar").items()
    }
    assert not rejected
    assert taken(CorpusInput(f"{tmp_path}/s-{{00..02}}.tar"))[1] == [("s-02.tar", "missing: it is not there")]
    with pytest.raises(ValueError, match="nothing matches"):
        list(CorpusInput(f"{tmp_path}/none-*.tar").entries())


def test_odd_members_are_rejected_or_left_alone_and_nothing_is_extracted(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}.items():
            info = tarfile.TarInfo(f"{name}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, data in [("/abs.jpg", b"1"), ("a/../../up.jpg", b"2"), ("same.jpg", b"3"), ("same.jpg", b"4")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    source = CorpusInput(f"{tmp_path}/a.tar")
    errors = {path: error.split(":")[0] for path, error in taken(source)[1]}
    assert errors == {
        "a.tar::link.jpg": "not_a_file",
        "a.tar::hard.jpg": "not_a_file",
        "a.tar::pipe.jpg": "not_a_file",
        "a.tar::/abs.jpg": "unsafe_name",
        "a.tar::a/../../up.jpg": "unsafe_name",
    }
    same = [source.read(e.path, e.offset, e.size) for e in source.entries() if not e.error]
    assert same == [b"3", b"4"]
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_tar_cut_anywhere_gives_what_is_whole_and_says_where(tmp_path):
    data = tar_of(IMAGES)
    ends = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        ends = [info.offset_data + info.size for info in tar]
    end_of_members = (ends[-1] + 511) // 512 * 512
    for cut in range(0, len(data) + 1, 256):
        (tmp_path / "a.tar").write_bytes(data[:cut])
        good, rejected = taken(CorpusInput(f"{tmp_path}/a.tar"))
        assert len(good) == sum(end <= cut for end in ends), cut
        assert list(good.values()) == list(IMAGES.values())[: len(good)]
        if cut >= end_of_members + 1024:
            assert not rejected
        else:
            ((path, error),) = rejected
            assert path == "a.tar"
            assert error.startswith("damaged: this tar cannot be read from byte "), (cut, error)


def test_a_flipped_bit_in_a_header_ends_the_tar_there(tmp_path):
    data = bytearray(tar_of(IMAGES))
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        third = tar.getmembers()[2].offset
    data[third + 3] ^= 4
    (tmp_path / "a.tar").write_bytes(data)
    good, ((path, error),) = taken(CorpusInput(f"{tmp_path}/a.tar"))
    assert list(good) == list(inside("a.tar"))[:2]
    assert (path, f"from byte {third} of {len(data)}" in error) == ("a.tar", True)


def test_compressed_archives_are_refused_with_the_remedy(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    for name in ("a.tar.gz", "b.tgz", "named.tar", "c.zip"):
        (tmp_path / name).write_bytes(buffer.getvalue())
    good, rejected = taken(CorpusInput(str(tmp_path)))
    assert good == {}
    assert [path for path, _ in rejected] == ["a.tar.gz", "b.tgz", "c.zip", "named.tar"]
    assert all(
        "compressed: images are read from uncompressed tars by byte range; unpack this" in e for _, e in rejected
    )


def test_keys_that_come_back_and_names_that_come_twice_are_inputs_of_their_own(tmp_path):
    """Keys mean nothing here: every image is an input, wherever its sample's other members are."""
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.json", b"{}"), ("a.png", b"3"), ("b.jpg", b"4"), ("a.jpg", b"1")]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    source = CorpusInput(f"{tmp_path}/x.tar")
    read = [(e.path.partition("::")[2], source.read(e.path, e.offset, e.size)) for e in source.entries()]
    assert read == [member for member in members if not member[0].endswith("json")]


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_a_sparse_member_is_rejected_and_those_after_it_are_taken(tmp_path, kind):
    """It announces gigabytes and holds none."""
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 33)
    (tmp_path / "after.jpg").write_bytes(b"after")
    command = ["tar", f"--format={kind}", "-S", "-cf", "x.tar", "sparse.jpg", "after.jpg"]
    try:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("GNU tar is not there to make a sparse member")
    assert (tmp_path / "x.tar").stat().st_size < 1 << 20
    good, rejected = taken(CorpusInput(f"{tmp_path}/x.tar"))
    assert good == {"x.tar::after.jpg": b"after"}
    assert rejected == [("x.tar::sparse.jpg", "not_a_file: a sparse member has no byte range; pack the tar anew")]


def test_a_compressed_bomb_is_refused_unread(tmp_path):
    bomb = gzip.compress(tar_of({"zeros.jpg": bytes(1 << 24)}))
    (tmp_path / "bomb.tar").write_bytes(bomb)
    opened = tmp_path.joinpath("bomb.tar").open("rb")
    with opened:
        (entry,) = tars.members("bomb.tar", len(bomb), opened)
        assert opened.tell() == 3
    assert entry.error.startswith("compressed: ")


def test_a_tar_that_shrank_after_the_listing_is_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(IMAGES))
    source = CorpusInput(f"{tmp_path}/a.tar")
    last = list(source.entries())[-1]
    os.truncate(tmp_path / "a.tar", last.offset + 5)
    with pytest.raises(LostError, match="the tar ends 2395 bytes before this member does"):
        source.read(last.path, last.offset, last.size)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b, c.jpg", "new\nline.jpg"):
        (tmp_path / "images" / name).write_bytes(name.encode())
    return tmp_path / "images"


def write_csv(path, columns):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_parquet(path, columns):
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize(("kind", "write"), [("csv", write_csv), ("parquet", write_parquet)])
def test_tables_as_lists(folder, tmp_path, kind, write):
    names = ["a", "b, c.jpg", str(folder / "new\nline.jpg")]
    listing = tmp_path / f"list.{kind}"
    write(listing, {"id": ["1", "2", "3"], "file": names, "url": ["x", "y", "z"]})
    good, rejected = taken(CorpusInput(str(folder), str(listing), "file"))
    assert list(good.values()) == [b"a.jpg", b"b, c.jpg", b"new\nline.jpg"]
    assert not rejected
    assert [path for path, _ in taken(CorpusInput(str(folder), str(listing)))[1]] == ["x", "y", "z"]  # url comes first
    with pytest.raises(ValueError, match=r"expected the column nope in .*, got id, file, url; .*corpus.column=NAME"):
        list(CorpusInput(str(folder), str(listing), "nope").entries())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tab.csv", "id\tfile_name\n1\ta.jpg\n2\tb, c.jpg\n"),
        ("tab.tsv", "id\tfile_name\n1\ta.jpg\n2\tb, c.jpg\n"),
        ("excel.csv", "\ufeffpath;size\r\na.jpg;1,5\r\nb, c.jpg;2,5\r\n"),
        ("records.jsonl", '{"id": 1, "image_path": "a.jpg"}\n\n{"id": 2, "image_path": "b, c.jpg"}\n'),
    ],
)
def test_tables_are_read_by_what_separates_their_header(folder, tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    good, rejected = taken(CorpusInput(str(folder), str(tmp_path / name)))
    assert list(good.values()) == [b"a.jpg", b"b, c.jpg"]
    assert not rejected


def test_a_bad_line_of_json_is_one_rejected_input(folder, tmp_path):
    (tmp_path / "list.jsonl").write_text('{"path": "a.jpg"}\n{"path": \n["a.jpg"]\n{"path": 3}\n')
    good, rejected = taken(CorpusInput(str(folder), str(tmp_path / "list.jsonl")))
    assert list(good.values()) == [b"a.jpg"]
    assert [error for _, error in rejected] == [
        "bad_line: 2 of the list: no JSON object",
        "bad_line: 3 of the list: no JSON object",
        "bad_line: 4 of the list: path is no text",
    ]


def test_a_table_without_a_header_is_told_apart_from_one_with_other_names(folder, tmp_path):
    listing = tmp_path / "list.csv"
    for text, remedy in (("a.jpg;1\n", "put the columns' names above"), ("photo;size\n", "corpus.column=NAME")):
        listing.write_text(text)
        with pytest.raises(ValueError, match=f"got {text.strip().replace(';', ', ')}; .*{remedy}"):
            list(CorpusInput(str(folder), str(listing)).entries())


def test_absolute_lists_need_no_root(folder, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text(f"{folder}/a.jpg\nfile://{folder}/b, c.jpg\n")
    assert list(taken(CorpusInput(None, str(listing)))[0].values()) == [b"a.jpg", b"b, c.jpg"]
    listing.write_text(f"{folder}/a.jpg\n\na.jpg\n")
    good, ((path, error),) = taken(CorpusInput(None, str(listing)))
    assert list(good.values()) == [b"a.jpg"]
    assert (path, "absolute paths and URLs in a list without corpus.root" in error) == ("a.jpg", True)
    assert error.startswith("bad_line: 3 of the list: ")


# A real server of S3's protocol


@pytest.fixture(scope="module")
def s3():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch = pytest.MonkeyPatch()
    keys = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for key, value in (keys | {"AWS_SECRET_ACCESS_KEY": "test", "NO_PROXY": "127.0.0.1"}).items():
        patch.setenv(key, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _bucket(server, port)
    finally:
        patch.undo()
        server.kill()
        server.wait()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _bucket(server, port):
    import s3fs

    while not _listens(port):
        assert server.poll() is None, "moto's server ended"
        time.sleep(0.1)
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    shard = tar_of({**IMAGES, "note.txt": b"-"})
    files = {"photos/a.jpg": b"first", "photos/sub/b.png": b"second", "photos/c.txt": b"-", "photos/sub/empty.jpg": b""}
    system.pipe({f"bucket/{key}": data for key, data in (files | {"shards/x-0.tar": shard}).items()})
    system.pipe(
        {"bucket/shards/x-1.tar": shard[:2000], "bucket/list.txt": b"s3://bucket/photos/a.jpg\nsub/b.png\ngone.jpg\n"}
    )
    system.pipe({"bucket/archive/odd [1].jpg": b"odd"})
    system.pipe({"bucket/gaps/a//b.jpg": b"b", "bucket/gaps/a//c/d.jpg": b"d", "bucket/gaps/a/e.jpg": b"e"})
    return "s3://bucket"


def test_folders_lists_and_tars_on_s3(s3):
    good, rejected = taken(CorpusInput(f"{s3}/photos"))
    assert good == {"a.jpg": b"first", "sub/b.png": b"second", "sub/empty.jpg": b""}
    assert [path for path, _ in rejected] == ["c.txt"]
    assert taken(CorpusInput(f"{s3}/archive"))[0] == {"odd [1].jpg": b"odd"}
    assert taken(CorpusInput(f"{s3}/gaps")) == ({"a//b.jpg": b"b", "a//c/d.jpg": b"d", "a/e.jpg": b"e"}, [])
    listed = CorpusInput(f"{s3}/photos", f"{s3}/list.txt")
    assert [listed.read(e.path) for e in listed.entries() if e.path != "gone.jpg"] == [b"first", b"second"]
    with pytest.raises(LostError, match="unreadable: FileNotFoundError"):
        listed.read("gone.jpg")
    assert taken(CorpusInput(f"{s3}/shards/x-0.tar")) == (inside("x-0.tar"), [])
    good, ((path, error),) = taken(CorpusInput(f"{s3}/shards/x-{{0..1}}.tar"))
    assert good == inside("x-0.tar") | dict(list(inside("x-1.tar").items())[:1])
    assert (path, error.startswith("damaged")) == ("x-1.tar", True)
    assert fingerprint(CorpusInput(f"{s3}/shards"))[0] == 6
