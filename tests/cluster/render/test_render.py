"""The rendered corpus: who reads it takes it for a user's folder, so the stage itself finds what is damaged."""

import logging

import pytest

from jobs._config import load
from tests.cluster.here import here

SCENES = ("corpus=scenes", "corpus.scenes=4", "corpus.scenes_val=2", "corpus.scene_size=48", "tracking.enabled=false")


@pytest.fixture
def render(tmp_path):
    """A function that asks for the stage and says where it is, and whether it was made."""
    config = load([f"root={tmp_path}", "name=demo", *SCENES])

    def asked():
        with here(config) as run:
            return run.ensure("render"), run.fresh

    return asked


def contents(folder):
    kept = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("timing.json", ".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


def test_every_scene_and_mask_has_a_hash_in_the_manifest(render):
    manifest, _ = render()
    listed = {name for name in contents(manifest.folder) if name.startswith(("JPEGImages", "SegmentationClass"))}
    assert len(listed) == 12
    assert [file.path for file in manifest.files if file.path.startswith("hashes/")] == ["hashes/000000.json"]
    assert render()[1] == []


@pytest.mark.parametrize("name", ["JPEGImages/000001.jpg", "SegmentationClass/000005.png", "hashes/000000.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "lost"])
def test_damage_is_found_and_made_good(render, caplog, name, how):
    manifest, _ = render()
    before, path = contents(manifest.folder), manifest.folder / name
    data = path.read_bytes()
    if how == "lost":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if how == "flipped" else data[:-9])
    with caplog.at_level(logging.WARNING):
        again, fresh = render()
    assert fresh == ["render"]
    assert "1 files are missing or damaged (hashes/000000.json); making them again" in caplog.text
    assert contents(again.folder) == before
