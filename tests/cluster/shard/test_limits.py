"""What comes is bounded, not what was announced; a list or a tar of somebody else's costs its own entries only."""

import gzip
import http.server
import io
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.shard import tars
from cluster.shard.inputs import CorpusInput, LostError
from tests.cluster.shard.test_containers import IMAGES, inside, taken, tar_of

LIMIT = 100_000


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends bytes until nobody takes them: as they are, or packed a thousandfold, or a small file."""

    def do_GET(self):
        packed = gzip.compress(bytes(1 << 24))
        self.send_response(200)
        if self.path == "/packed.jpg":
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        try:
            if self.path == "/endless.jpg":
                while True:
                    self.wfile.write(bytes(1 << 16))
                    self.server.sent += 1 << 16
            self.wfile.write(packed if self.path == "/packed.jpg" else b"small")
        except OSError:
            self.server.done.set()

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.sent, server.done = 0, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def listed(tmp_path, *lines, **options):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return CorpusInput(None, str(tmp_path / "list.txt"), **options)


def test_a_url_is_read_up_to_the_budget_whatever_it_announces(server, tmp_path):
    names = [f"http://127.0.0.1:{server.server_port}/{name}.jpg" for name in ("endless", "packed", "small")]
    source = listed(tmp_path, *names, max_bytes=LIMIT)
    endless, packed, small = source.entries()
    for entry in (endless, packed):
        with pytest.raises(LostError, match=rf"too_large: .* budget of {LIMIT} bytes \(corpus\.max_bytes\)"):
            source.read(entry.path)
    assert source.read(small.path) == b"small"
    assert server.done.wait(300), "the reader hung up"


def test_a_local_file_is_read_up_to_the_budget(tmp_path):
    (tmp_path / "a.jpg").write_bytes(bytes(LIMIT))
    (tmp_path / "b.jpg").write_bytes(bytes(LIMIT + 1))
    source = CorpusInput(str(tmp_path), max_bytes=LIMIT)
    assert len(source.read("a.jpg")) == LIMIT
    with pytest.raises(LostError, match="too_large"):
        source.read("b.jpg")


def test_a_special_file_behind_a_url_is_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    source = listed(tmp_path, f"file://{tmp_path}/pipe.jpg", "file:///dev/zero")
    assert [entry.error for entry in source.entries()] == ["not_a_file: a named pipe", "not_a_file: a device"]
    with pytest.raises(LostError, match="not a file"):
        source.read("file:///dev/zero")


def test_a_list_may_not_choose_any_driver(tmp_path):
    lines = [
        "ftp://host/a.jpg",
        "zip://a.jpg::http://host/b.zip",
        "nonsense://x",
        "memory://a.jpg",
        "https://host/a.jpg",
    ]
    found = {entry.path: entry.error for entry in listed(tmp_path, *lines).entries()}
    assert found["https://host/a.jpg"] == ""
    for number, (path, driver) in enumerate(zip(lines, ("ftp", "zip", "nonsense", "memory"), strict=False), 1):
        assert found[path].startswith(f"bad_line: {number} of the list: expected a path or a URL of http, https, s3"), (
            path
        )
        assert f"got {driver}; allow it with corpus.drivers=" in found[path]
    allowed = {entry.path: entry.error for entry in listed(tmp_path, *lines, drivers=("memory", "nonsense")).entries()}
    assert allowed["memory://a.jpg"] == ""
    assert allowed["nonsense://x"].startswith("bad_line: 3 of the list: ")


def test_one_bad_row_is_one_rejected_input_with_its_line(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    huge = "x" * 200_000  # over the csv module's limit of a field
    (tmp_path / "list.csv").write_text(f"id,path\n1,a.jpg\n2\n3,{huge}\n4,a.jpg\n")
    good, rejected = taken(CorpusInput(str(tmp_path), str(tmp_path / "list.csv")))
    assert list(good.values()) == [b"a"]
    assert [path for path, _ in rejected] == ["line 3", "line 4"]
    assert rejected[0][1] == "bad_line: 3 of the list: 1 columns, expected 2"
    assert [entry.path for entry in CorpusInput(str(tmp_path), str(tmp_path / "list.csv")).entries()].count(
        "a.jpg"
    ) == 2


COLUMNS = {
    "bytes": pa.array([b"a.jpg", "ü.jpg".encode()]),
    "records": pa.array([{"bytes": b"-", "path": "a.jpg"}, {"bytes": b"-", "path": "ü.jpg"}]),
    "dictionary": pa.array(["a.jpg", "ü.jpg"]).dictionary_encode(),
    "large": pa.array(["a.jpg", "ü.jpg"], pa.large_string()),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_parquet_columns_of_bytes_and_records_are_paths(tmp_path, kind):
    for name in ("a.jpg", "ü.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    pq.write_table(pa.table({"image": COLUMNS[kind]}), tmp_path / "list.parquet")
    good, rejected = taken(CorpusInput(str(tmp_path), str(tmp_path / "list.parquet")))
    assert good == {"a.jpg": b"a.jpg", "ü.jpg": "ü.jpg".encode()}
    assert not rejected


def test_other_parquet_columns_are_refused_by_their_type_and_records_without_a_path_are_named(tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"image": pa.array([1, 2])}), path)
    with pytest.raises(ValueError, match=r"expected text, bytes or records with a path .* got int64; name the column"):
        list(CorpusInput(str(tmp_path), str(path)).entries())
    pq.write_table(
        pa.table({"image": pa.array([{"bytes": b"-", "path": None}, {"bytes": b"-", "path": "a.jpg"}])}), path
    )
    first, second = CorpusInput(str(tmp_path), str(path)).entries()
    assert (first.path, first.error) == ("line 1", "bad_line: 1 of the list: the record has no path")
    assert second.path == "a.jpg"


# Tars


def test_tars_that_were_put_together_are_read_on(tmp_path):
    first, second = tar_of(dict(list(IMAGES.items())[:2])), tar_of(dict(list(IMAGES.items())[2:]))
    (tmp_path / "a.tar").write_bytes(first + second)
    assert taken(CorpusInput(f"{tmp_path}/a.tar")) == (inside("a.tar"), [])


def test_what_stands_behind_the_end_and_is_no_tar_is_one_line(tmp_path):
    data = tar_of(IMAGES)
    (tmp_path / "a.tar").write_bytes(data + b"\x07" * 5000)
    good, ((path, error),) = taken(CorpusInput(f"{tmp_path}/a.tar"))
    assert good == inside("a.tar")
    assert (path, error.startswith(f"damaged: this tar cannot be read from byte {len(data)} ")) == ("a.tar", True)


class Stuck(io.BytesIO):
    """A file that gives its first header again and again, wherever it is read."""

    def seek(self, place, whence=0):
        return super().seek(place if place < 512 or whence else 0)


class Circle:
    """A member that tarfile finds again and again."""

    def __init__(self, tar):
        self.info = tar.next()
        self.offset, self.members = tar.offset, tar.members

    def next(self):
        return self.info


def test_a_reader_that_stands_still_ends_as_damage(monkeypatch):
    data = tar_of(IMAGES)
    found = list(tars.members("a.tar", len(data), Stuck(data)))
    assert found[-1].error.startswith("damaged: this tar cannot be read from byte ")
    monkeypatch.setattr(
        tars, "_scan", lambda path, size, tar, file, real=tars._scan: real(path, size, Circle(tar), file)
    )
    *taken_, last = tars.members("a.tar", len(data), io.BytesIO(data))
    assert [entry.path for entry in taken_] == ["a.tar::inner/0.jpg"]
    assert "its headers lead in a circle" in last.error


def test_reads_that_get_no_farther_end():
    forward = tars._Forward(io.BytesIO(bytes(1024)), 0)
    for _ in range(1 + tars._MOST_IDLE):
        forward.seek(0)
        forward.read(512)
    forward.seek(0)
    with pytest.raises(tars.tarfile.ReadError, match="circle"):
        forward.read(512)
