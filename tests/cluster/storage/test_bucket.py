"""Objects by the paths of their copies, and a store that is slow, busy, or no store at all."""

import functools
from pathlib import Path

import pytest

from cluster.storage import bucket, paths
from tests.cluster import s3

STORES = s3.kinds()


def test_a_path_says_where_its_file_belongs(monkeypatch):
    monkeypatch.setenv("FSS_CACHE", "/copies")
    path = bucket.copy_of("s3://photos/runs/") / "demo" / "manifest.json"
    assert path == Path("/copies/s3:/photos/runs/demo/manifest.json")
    assert bucket.key(path) == "photos/runs/demo/manifest.json"
    assert bucket.address(path) == "s3://photos/runs/demo/manifest.json"
    assert paths.place("s3://photos/runs") == path.parents[1]
    for own in (Path("/mnt/runs/demo"), Path("s3://photos/runs")):
        assert bucket.key(own) is None
    assert bucket.address(Path("/mnt/runs/demo")) == "/mnt/runs/demo"


@pytest.mark.parametrize("place", ["s3://", "s3:///runs", "s3://bucket//runs", "s3://bucket/a\nb"])
def test_what_is_no_address_is_refused(place):
    with pytest.raises(ValueError, match="expected s3://BUCKET/FOLDER"):
        bucket.copy_of(place if place != "s3:///runs" else "s3://")


def test_objects_are_put_read_listed_and_removed(door):
    bucket.put("bucket/a/1.json", b"one")
    bucket.put("bucket/a/b/2.json", b"two")
    bucket.put("bucket/ab.json", b"of another folder")
    assert bucket.get("bucket/a/1.json") == b"one"
    assert {name: about.size for name, about in bucket.listing("bucket/a").items()} == {"1.json": 3, "b/2.json": 3}
    assert bucket.matching("bucket/a", "*") == ["1.json", "b"]
    assert bucket.matching("bucket/a", "b/*.json") == ["b/2.json"]
    assert bucket.matching("bucket/none", "*/x") == []
    bucket.remove(["bucket/a/1.json", "bucket/a/none"])
    assert list(bucket.listing("bucket/a")) == ["b/2.json"]
    with pytest.raises(FileNotFoundError):
        bucket.get("bucket/a/1.json")


@pytest.mark.parametrize(("size", "requests"), [(0, ["GET"]), (4, ["GET"]), (1 << 40, ["HEAD", "GET"])])
def test_an_object_is_asked_for_once_unless_it_is_large(door, size, requests):
    bucket.put("bucket/once", b"data")
    door.requests.clear()
    assert bucket.get("bucket/once", size) == b"data"
    assert [method for method, _ in door.requests] == requests


def test_more_objects_than_one_answer_lists(door):
    names = [f"{number:05d}" for number in range(1001)]
    list(bucket.each(lambda name: bucket.put(f"bucket/many/{name}", b"-"), names))
    assert list(bucket.listing("bucket/many")) == names
    assert bucket.matching("bucket/many", "*") == names
    bucket.remove([f"bucket/many/{name}" for name in names])
    assert bucket.listing("bucket/many") == {}


def test_one_of_two_writers_puts_under_a_condition(door):
    tag = bucket.put_if("bucket/lock", b"first", None)
    assert tag is not None
    assert bucket.put_if("bucket/lock", b"second", None) is None
    assert bucket.put_if("bucket/lock", b"first", None) == tag  # a try that had arrived, and is made again
    newer = bucket.put_if("bucket/lock", b"third", tag)
    assert bucket.get_tagged("bucket/lock") == (b"third", newer)
    assert bucket.put_if("bucket/lock", b"fourth", tag) is None
    assert bucket.put_if("bucket/gone", b"-", tag) is None


def test_a_busy_store_is_asked_again(door, folder):
    door.refused = 1
    bucket.put(bucket.key(folder / "x"), b"data")
    door.refused = 1
    assert bucket.get(bucket.key(folder / "x")) == b"data"
    door.refused = 1
    assert list(bucket.listing(bucket.key(folder))) == ["x"]
    assert door.refused == 0


def test_what_is_wrong_with_a_root_is_told(door):
    assert bucket.problem("bucket/runs") is None
    assert bucket.listing("bucket/runs") == {}
    assert "expected a bucket that can be written at s3://other/runs" in bucket.problem("other/runs")


@pytest.mark.parametrize(
    "put",
    [
        pytest.param(lambda put, name, data, **_: put(name, data), id="no condition counts"),
        pytest.param(
            lambda put, name, data, **condition: put(
                name, data, **{k: v for k, v in condition.items() if k != "IfMatch"}
            ),
            id="If-Match does not count",
        ),
        pytest.param(
            lambda put, name, data, **condition: None if "IfMatch" in condition else put(name, data, **condition),
            id="If-Match never holds",
        ),
    ],
)
def test_a_store_that_keeps_no_conditions_is_refused(door, monkeypatch, put):
    monkeypatch.setattr(bucket, "_put_if", functools.partial(put, bucket._put_if))
    assert "expected a store that refuses the second of two writers, and no other" in bucket.problem("bucket/runs")
    assert bucket.listing("bucket/runs") == {}


def test_a_store_that_is_not_there_is_told(door, monkeypatch):
    from botocore.exceptions import EndpointConnectionError

    def away(*_, **__):
        raise EndpointConnectionError(endpoint_url="http://store:9000")

    monkeypatch.setattr(bucket, "system", lambda: type("Away", (), {"call_s3": away, "cat_file": away}))
    with pytest.raises(ConnectionError, match="s3://bucket/x: Could not connect"):
        bucket.get("bucket/x")
    assert "check the name, AWS_ENDPOINT_URL" in bucket.problem("bucket/runs")
