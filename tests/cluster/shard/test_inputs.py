import contextlib
import errno
import os
import socket

import fsspec
import pytest

from cluster.shard.inputs import CorpusInput, LostError, apart, fingerprint
from cluster.shard.places import Remote


def found(source):
    """(path, bytes) of the entries, or (path, first word of the error)."""
    return [(e.path, e.error.split(":")[0] if e.error else e.size) for e in source.entries()]


def fill(folder, *names, data=b"12345"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_a_folder_is_walked_in_one_order(tmp_path):
    fill(tmp_path, "b.JPG", "a/z.png", "a/c.jpeg", "c.webp", "notes.txt", ".hidden.jpg", "noextension")
    assert found(CorpusInput(str(tmp_path))) == [
        ("b.JPG", 5),
        ("c.webp", 5),
        ("noextension", "not_an_image"),
        ("notes.txt", "not_an_image"),
        ("a/c.jpeg", 5),
        ("a/z.png", 5),
    ]
    assert CorpusInput(str(tmp_path)).read("a/z.png") == b"12345"


def test_files_that_are_no_images_are_named_by_their_kind(tmp_path):
    fill(tmp_path, "a.jpg", "a.txt", "b/b.jpg", "b/b.txt", "b/c.txt", "b/d.json")
    named = {entry.path: entry.error for entry in CorpusInput(str(tmp_path)).entries() if entry.error}
    assert sorted(named) == ["a.txt", "b/*.txt", "b/d.json"]
    assert named["b/*.txt"].startswith("not_an_image: the names of 2 files end as no image's does; give images of such")
    assert fingerprint(CorpusInput(str(tmp_path)))[0] == 5
    (tmp_path / "a.jpg").rename(tmp_path / "a.doc")
    (tmp_path / "b/b.jpg").rename(tmp_path / "b/b.doc")
    with pytest.raises(ValueError, match="found none"):
        fingerprint(CorpusInput(str(tmp_path)))


def test_odd_things_in_a_folder(tmp_path):
    fill(tmp_path, "a.jpg", "dots.in.name.jpg", "line\nbreak.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / os.fsdecode(b"latin\xe9.jpg")).write_bytes(b"1")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    fill(tmp_path, "folder.jpg/__x__.jpg", "n" * 251 + ".jpg", "\U0001f600.png", ".thumbnails/a.jpg")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        entries = dict(found(CorpusInput(str(tmp_path))))
    assert entries == {
        "a.jpg": 5,
        "dots.in.name.jpg": 5,
        "line\nbreak.jpg": 5,
        os.fsdecode(b"latin\xe9.jpg"): 1,
        "n" * 251 + ".jpg": 5,
        "\U0001f600.png": 5,
        "folder.jpg/__x__.jpg": 5,
        "dangling.jpg": "missing",
        "itself.jpg": "unreadable",
        "pipe.jpg": "not_a_file",
        "socket.jpg": "not_a_file",
    }
    with pytest.raises(LostError, match="not a file"):  # a pipe that came after the listing does not hang the reader
        CorpusInput(str(tmp_path)).read("pipe.jpg")


def test_devices_are_never_opened(tmp_path):
    for device in ("zero", "null"):
        (tmp_path / f"{device}.jpg").symlink_to(f"/dev/{device}")
    assert [e.error for e in CorpusInput(str(tmp_path)).entries()] == ["not_a_file: a device"] * 2
    with pytest.raises(LostError, match="unreadable: not a file"):  # not even where a list or a late change leads there
        CorpusInput(str(tmp_path)).read("zero.jpg")


def test_what_may_not_be_read_is_told(tmp_path, monkeypatch):
    """The kernel's refusal is played, since an administrator may read everything."""
    fill(tmp_path, "a.jpg", "locked.jpg", "closed/b.jpg", "open/c.jpg")
    scan, really = os.scandir, os.open

    def refusing(call, name):
        def called(path, *rest):
            if os.fspath(path).endswith(name):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *rest)

        return called

    monkeypatch.setattr(os, "scandir", refusing(scan, "closed"))
    monkeypatch.setattr(os, "open", refusing(really, "locked.jpg"))
    source = CorpusInput(str(tmp_path))
    entries = {entry.path: entry.error for entry in source.entries()}
    assert entries == {
        "a.jpg": "",
        "locked.jpg": "",
        "closed": "folder: it cannot be read (Permission denied)",
        "open/c.jpg": "",
    }
    with pytest.raises(LostError, match=r"unreadable: .*Permission denied"):
        source.read("locked.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may read everything")
def test_modes_without_any_rights(tmp_path):
    fill(tmp_path, "locked.jpg", "closed/b.jpg")
    for name in ("locked.jpg", "closed"):
        (tmp_path / name).chmod(0)
    try:
        assert found(CorpusInput(str(tmp_path))) == [("locked.jpg", 5), ("closed", "folder")]
        with pytest.raises(LostError, match=r"unreadable: .*Permission denied"):
            CorpusInput(str(tmp_path)).read("locked.jpg")
    finally:
        (tmp_path / "closed").chmod(0o700)


class Failing:
    """A file system of fsspec that answers every read with one error."""

    def __init__(self, protocol, error):
        self.protocol, self.error = protocol, error

    def cat_file(self, path, **_):
        raise self.error

    def open(self, path, *_, **__):
        raise self.error


@pytest.mark.parametrize(
    ("protocol", "error", "lost"),
    [
        ("s3", FileNotFoundError("no such key"), True),
        ("s3", PermissionError("Forbidden"), True),
        ("s3", PermissionError("The provided token has expired."), False),
        ("s3", ConnectionError("reset by peer"), False),
        ("s3", TimeoutError("read timed out"), False),
        ("s3", OSError("503 Slow Down"), False),
        (("http", "https"), RuntimeError("410, message='Gone'"), True),
        (("http", "https"), ConnectionError("name does not resolve"), True),
    ],
)
def test_a_store_that_fails_loses_no_image_and_a_dead_address_only_itself(protocol, error, lost):
    with pytest.raises(LostError if lost else type(error), match=str(error)):
        Remote(Failing(protocol, error)).read("bucket/a.jpg", -1, 0)


def test_a_circle_of_links_is_not_followed(tmp_path):
    fill(tmp_path, "a/one.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "file.jpg").symlink_to(tmp_path / "a" / "one.jpg")  # links to files are
    assert found(CorpusInput(str(tmp_path))) == [("file.jpg", 5), ("a/one.jpg", 5), ("a/again", "folder")]


def test_lists_of_names_and_paths(tmp_path):
    fill(tmp_path, "JPEGImages/2007_000027.jpg", "b.png", "sub/c.jpg", "d.jpg")
    listing = tmp_path / "list.txt"
    listing.write_text("2007_000027\nb\n\n  sub/c.jpg \nd.jpg\n2007_999999\n../list.txt.jpg\n")
    assert found(CorpusInput(str(tmp_path), str(listing))) == [
        ("JPEGImages/2007_000027.jpg", 5),
        ("b.png", 5),
        ("sub/c.jpg", 5),
        ("d.jpg", 5),
        ("2007_999999", "missing"),
        ("../list.txt.jpg", "missing"),
    ]


def test_lines_in_quotes_with_labels_behind_or_in_utf_16(tmp_path):
    fill(tmp_path, "a.jpg", "d e.jpg", "ü.jpg")
    listing = tmp_path / "list.txt"
    listing.write_text("a.jpg 3\n'd e.jpg'\nd e.jpg\nü.jpg\t4 5\n\"a.jpg\"\nd f.jpg 1\n", encoding="utf-16")
    names = ["a.jpg", "d e.jpg", "d e.jpg", "ü.jpg", "a.jpg"]
    assert found(CorpusInput(str(tmp_path), str(listing))) == [*((name, 5) for name in names), ("d f.jpg 1", "missing")]
    listing.write_bytes(listing.read_bytes()[:-1])  # cut in the middle of a letter
    assert len(found(CorpusInput(str(tmp_path), str(listing)))) == 6


def test_a_list_with_masks_as_in_voc_takes_the_image(tmp_path):
    fill(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png")
    listing = tmp_path / "list.txt"
    listing.write_text("a\n")
    assert found(CorpusInput(str(tmp_path), str(listing))) == [("JPEGImages/a.jpg", 5)]


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.pipe({"/bucket/a.jpg": b"123", "/bucket/sub/b.png": b"4567", "/bucket/readme.md": b"-"})
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_urls(memory):
    assert found(CorpusInput(memory)) == [("a.jpg", 3), ("readme.md", "not_an_image"), ("sub/b.png", 4)]
    assert CorpusInput(memory).read("sub/b.png") == b"4567"
    assert fingerprint(CorpusInput(f"{memory}/")) == fingerprint(CorpusInput(memory))


def test_a_url_with_a_list(memory, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text("a.jpg\nmissing.jpg\n")
    source = CorpusInput(memory, str(listing))
    assert [entry.path for entry in source.entries()] == ["a.jpg", "missing.jpg"]
    with pytest.raises(LostError, match=r"missing\.jpg"):
        source.read("missing.jpg")


def test_fingerprints(tmp_path):
    fill(tmp_path / "images", "a.jpg", "b.jpg")
    source = str(tmp_path / "images")
    first, second = tmp_path / "1.txt", tmp_path / "2.txt"
    first.write_text("a\nb\n")
    second.write_text("b\na\n")
    number, before = fingerprint(CorpusInput(source))
    assert number == 2
    assert fingerprint(CorpusInput(source, str(first))) == fingerprint(CorpusInput(source, str(second))) == (2, before)
    fill(tmp_path / "images", "b.jpg", data=b"123456")
    assert fingerprint(CorpusInput(source))[1] != before
    fill(tmp_path / "images", "b.jpg")
    assert fingerprint(CorpusInput(source))[1] == before
    (tmp_path / "images" / "b.jpg").rename(tmp_path / "images" / "c.jpg")
    assert fingerprint(CorpusInput(source))[1] != before


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder of images at corpus.root=.*/absent, there is none"):
        list(CorpusInput(str(tmp_path / "absent")).entries())
    with pytest.raises(ValueError, match=r"expected a list of images at corpus.list=.*no such file"):
        list(CorpusInput(str(tmp_path), str(tmp_path / "absent.txt")).entries())
    (tmp_path / "notes.txt").write_text("-")
    with pytest.raises(ValueError, match=r"expected images \(.*\.jpg.*\) in .*, found none"):
        fingerprint(CorpusInput(str(tmp_path)))


def test_what_is_no_folder_and_no_list_is_called_so(tmp_path):
    fill(tmp_path, "a.jpg", "list.json", "list.csv")
    for source, told in (
        (CorpusInput(str(tmp_path / "a.jpg")), "expected a folder of images at .*a.jpg, got a file"),
        (CorpusInput(str(tmp_path), str(tmp_path)), "expected a list of images at .*, got a folder; give corpus.root="),
        (CorpusInput(str(tmp_path), str(tmp_path / "a.jpg")), r"expected a text file with one .*, got \.jpg; write it"),
        (CorpusInput(str(tmp_path), str(tmp_path / "list.json")), r"\.jsonl, .*, got \.json; write it as one of these"),
        (CorpusInput("nosuch://bucket"), "nosuch://bucket: Protocol not known: nosuch; install or set up its driver"),
    ):
        with pytest.raises(ValueError, match=told):
            list(source.entries())


@pytest.mark.parametrize(
    ("corpus", "root"),
    [
        ("photos", "photos"),
        ("photos", "photos/runs"),
        ("photos", "photos/a/../deep/runs"),
        ("link", "photos/runs"),
        ("photos/*", "photos/runs"),
        ("photos/*", "photos/runs/mine"),
        ("photos/**/*.jpg", "photos/runs"),
        ("photos/{a,runs}", "photos/runs"),
        ("s3://bucket/photos/", "s3://bucket/photos/runs"),
        ("s3://bucket", "s3://bucket/runs"),
    ],
)
def test_a_run_among_its_own_images_is_refused(tmp_path, corpus, root):
    fill(tmp_path / "photos", "a.jpg")
    (tmp_path / "link").symlink_to("photos")
    given, place = (one if "://" in one else f"{tmp_path}/{one}" for one in (corpus, root))
    with pytest.raises(ValueError, match=r"^root: expected a folder whose files are no images of corpus\.root=.*, got"):
        apart(CorpusInput(given), place)


@pytest.mark.parametrize(
    ("corpus", "root"),
    [
        ("photos", "runs"),
        ("photos", "photos2"),
        ("runs/photos", "runs"),
        ("photos", "photos/.runs"),
        ("photos/*.tar", "photos/runs"),
        ("photos/shards/*.tar", "photos/runs"),
        ("photos/a.tar", "photos/runs"),
        ("s3://bucket/photos", "s3://bucket/photos2"),
        ("s3://bucket/photos", "photos"),
    ],
)
def test_a_run_beside_its_images_is_not(tmp_path, corpus, root):
    (tmp_path / "photos").mkdir()
    given, place = (one if "://" in one else f"{tmp_path}/{one}" for one in (corpus, root))
    assert apart(CorpusInput(given), place) is None


def test_a_list_names_what_it_means(tmp_path):
    assert apart(CorpusInput(str(tmp_path), str(tmp_path / "list.txt")), str(tmp_path / "runs")) is None
