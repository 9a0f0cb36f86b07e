"""The printed command for a finished run's model: its words, wherever the photos are."""

import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.report import example
from tests.fss.conftest import noise_image


def asked(tmp_path, root, kind="folder"):
    corpus = SimpleNamespace(kind=kind, root=root)
    run = SimpleNamespace(
        config=SimpleNamespace(corpus=corpus),
        folder=tmp_path / "my run",
        manifest=lambda stage: SimpleNamespace(folder=tmp_path / stage),
    )
    line = example.predict(run, Path("model"))
    assert shlex.split(line)[1:4] == ["-m", "jobs.predict", "model=model"]
    return shlex.split(line)[4:]


@pytest.mark.parametrize("kind", ["folder", "scenes"])
def test_the_middle_of_the_first_photo_is_the_thing(tmp_path, kind):
    folder = tmp_path / "render" / "JPEGImages"
    folder.mkdir(parents=True)
    for name, size in (("b.jpg", (50, 30)), ("a.jpg", (80, 60))):
        noise_image(0, size).save(folder / name)
    (folder / "0.txt").write_text("no photo")
    (folder / "0.jpg").write_bytes(b"damaged")
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7Mac OS X")
    os.mkfifo(folder / "00.jpg")
    assert asked(tmp_path, str(folder), kind) == [
        f"support={folder}/a.jpg", "support_points=[[[40,30,1]]]", f"query={folder}", f"out={tmp_path}/my run/masks"
    ]  # fmt: skip


@pytest.mark.parametrize("root", [None, "photos.tar", "s3://bucket/photos", "empty", "broken"])
def test_photos_elsewhere_leave_words_to_be_replaced(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no photo")
    assert asked(tmp_path, root) == ["support=IMAGE", "support_mask=MASK", "query=PHOTOS", "out=MASKS"]
