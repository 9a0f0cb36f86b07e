"""Users' own images through the predict command, and the errors of the sync command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cluster.engine.refused import RefusedError
from fss.segmenter import Segmenter
from jobs import predict, sync
from jobs._config import load
from tests.cluster.serving.test_video import write


@pytest.fixture(scope="module")
def model(tiny_run):
    return tiny_run.manifest("train").folder / "model"


@pytest.fixture
def own(photos, tmp_path):
    """A user's folder: two supports with masks, three queries of which one is broken."""
    folder = tmp_path / "own"
    (folder / "queries").mkdir(parents=True)
    pictures = sorted((photos / "JPEGImages").iterdir())
    for name, path in zip(("a.jpg", "b.jpg", "queries/one.jpg", "queries/two.JPG"), pictures, strict=False):
        (folder / name).write_bytes(path.read_bytes())
    Image.open(pictures[5]).resize((60, 45)).save(folder / "queries" / "small.png")
    whole = pictures[0].read_bytes()
    (folder / "queries" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "queries" / "notes.txt").write_text("no image")
    (folder / "queries" / "old").mkdir()
    (folder / "queries" / "raw.cr2").write_bytes(b"raw")
    for name in ("a", "b"):
        mask = np.zeros((96, 96), np.uint8)
        mask[20:60, 30:70] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    return folder


def run(model, own, *overrides):
    arguments = {
        "model": model,
        "support": own / "a.jpg",
        "support_mask": own / "a.png",
        "query": own / "queries",
        "out": own / "out",
    } | dict(override.split("=", 1) for override in overrides)
    predict.predict(predict.COMMAND.load([f"{key}={value}" for key, value in arguments.items()]))


def masks(own):
    return {path.name: np.asarray(Image.open(path)) for path in sorted((own / "out").glob("*.png"))}


def test_masks_and_overlays_in_the_images_size(model, own, capsys):
    run(model, own)
    found = masks(own)
    assert {name: mask.shape for name, mask in found.items()} == {
        "one.png": (96, 96),
        "small.png": (45, 60),
        "two.png": (96, 96),
    }
    assert all(mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1} for mask in found.values())
    assert Image.open(own / "out" / "small.overlay.jpg").size == (60, 45)
    told = capsys.readouterr().out
    assert f"skipped {own}/queries/broken.jpg: truncated" in told
    assert f"skipped {own}/queries/raw.cr2: unreadable" in told
    assert "left out, no images by their names: notes.txt, old/\n" in told
    assert told.endswith(f"predict: 3 of 5 images; {own}/out\n")
    assert f"one.jpg: {100 * found['one.png'].mean():.1f} % of the image" in told


def test_the_mask_is_the_segmenters(model, own):
    run(model, own)
    mask = (np.asarray(Image.open(own / "a.png")) > 0).astype(np.uint8)
    with Image.open(own / "queries" / "one.jpg") as query, Image.open(own / "a.jpg") as support:
        direct = Segmenter.load(model).segment(query.convert("RGB"), [support.convert("RGB")], [mask])
    np.testing.assert_array_equal(masks(own)["one.png"], direct)


def test_what_is_told_of_all_images(model, own, capsys):
    """Whether the thing is there is told by a chance if the model was calibrated, else by the mask."""
    run(model, own, "name=ball", "soft=true")
    written = sorted(path.name for path in (own / "out").iterdir())
    of_each = [f"{stem}.{end}" for stem in ("one", "small", "two") for end in ("overlay.jpg", "png", "soft.png")]
    assert written == sorted([*of_each, "answers.csv", "coco.json", "predict.json", "sheet.jpg"])
    rows = list(csv.DictReader((own / "out" / "answers.csv").open()))
    assert [Path(row["file"]).name for row in rows] == ["one.jpg", "small.png", "two.JPG"]
    known = Segmenter.load(model).about["presence"] is not None
    for row in rows:
        there = float(row["chance"]) >= 0.25 if known else float(row["area"]) > 0
        assert row["present"] == str(int(there))
        assert known or row["chance"] == ""
    missed = sum(row["present"] == "0" for row in rows)
    assert capsys.readouterr().out.count(" % of the image, not there\n") == missed
    coco = json.loads((own / "out" / "coco.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "ball"}]
    assert [(one["width"], one["height"]) for one in coco["images"]] == [(96, 96), (60, 45), (96, 96)]


def test_a_box_and_points_stand_for_a_mask(model, own):
    shown = {"box": "support_box=[[30,20,70,60]]", "points": "support_points=[[[50,40,1],[5,5,0]]]"}
    for name, given in shown.items():
        arguments = [f"model={model}", f"support={own}/a.jpg", given, f"query={own}/queries/one.jpg"]
        predict.predict(predict.COMMAND.load([*arguments, f"out={own}/{name}"]))
        assert {path.name for path in (own / name).iterdir()} >= {"one.png", "sheet.jpg"}
    with pytest.raises(ValueError, match=r"expected a box \[left,top,right,bottom\] within 96x96"):
        predict.predict(predict.COMMAND.load([*arguments[:2], "support_box=[[90,90,20,20]]", arguments[3], "out=o"]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "expected one of support_mask, support_box, support_points, got none; set one"),
        (["support_mask=a.png", "support_box=[[1,2,3,4]]"], "got support_mask and support_box; set one"),
        (["support_box=[[1,2,3]]"], r"support_box: expected \[\[left,top,right,bottom\]\], four numbers each"),
        (["support_box=[[1,2,inf,4]]"], r"support_box: expected \[\[left,top,right,bottom\]\], four numbers each"),
        (["support_box=[1,2,3,4]"], r"support_box: expected a list of lists .*; write \[\[1,2,3,4\]\] in its place"),
        (
            ["support_points=[[1,2,1]]"],
            r"support_points: expected a list of lists .*; write \[\[1,2,1\]\] ",
        ),
        (["support_box=[[1,2,3,4]]", "query=[]"], r"query: expected at least one image, got an empty list"),
        (["support_points=[[[1,2]]]"], r"support_points: expected points \[x,y,side\] for each support"),
        (
            ["support_box=[[1,2,3,4],[1,2,3,4]]"],
            "support_box: expected one box for each support, got 2 for 1 supports",
        ),
    ],
)
def test_what_shows_the_thing_is_given_once(given, told):
    with pytest.raises(ValueError, match=told):
        predict.COMMAND.load(["model=m", "support=a.jpg", "query=b.jpg", "out=o", *given])


def test_several_supports_and_a_single_query(model, own):
    run(model, own, f"support=[{own}/a.jpg,{own}/b.jpg]", f"support_mask=[{own}/a.png,{own}/b.png]",
        f"query={own}/queries/one.jpg")  # fmt: skip
    assert list(masks(own)) == ["one.png"]
    with pytest.raises(ValueError, match="expected one mask for each support, got 1 for 2 supports"):
        run(model, own, f"support=[{own}/a.jpg,{own}/b.jpg]")


def test_the_model_is_found_in_the_runs_folder(tiny_run, own):
    run(tiny_run.folder, own)
    assert len(masks(own)) == 3


def test_a_higher_threshold_marks_less(model, own):
    run(model, own, "threshold=0.1")
    low = masks(own)
    run(model, own, "threshold=0.9", "overwrite=true")
    high = masks(own)
    assert all((low[name] >= high[name]).all() for name in low)
    assert sum(mask.sum() for mask in low.values()) > sum(mask.sum() for mask in high.values())
    with pytest.raises(ValueError, match=r"threshold: expected a probability in \(0, 1\), got 1\.5"):
        run(model, own, "threshold=1.5", "overwrite=true")


def test_nothing_is_overwritten_unasked(model, own):
    run(model, own)
    before = masks(own)
    with pytest.raises(ValueError, match=r"already holds masks of these images; choose another out= or set overwrite"):
        run(model, own)
    run(model, own, "overwrite=true")
    assert all((before[name] == mask).all() for name, mask in masks(own).items())


def test_no_other_folder_is_written_into(model, own):
    before = sorted(path.name for path in (own / "queries").iterdir())
    with pytest.raises(ValueError, match=r"out: expected a new or empty folder, .*\(predict\.json\), got .*/queries"):
        run(model, own, f"out={own}/queries", "overwrite=true")
    assert sorted(path.name for path in (own / "queries").iterdir()) == before


def test_a_folder_of_masks_says_what_made_them(model, own):
    run(model, own)
    told = json.loads((own / "out" / "predict.json").read_text())
    assert (told["model"], told["support"], told["threshold"]) == (str(model), str(own / "a.jpg"), 0.5)
    assert told["sha256"] == Segmenter.load(model).about["sha256"]


def test_bands_and_range_are_read_as_the_corpus_was(model, own, capsys):
    pixels = np.random.default_rng(0).integers(0, 3000, (13, 40, 40)).astype(np.uint16)
    path = own / "sentinel.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate")
    with pytest.raises(ValueError, match=r"none of the 1 images at query=.*sentinel\.tif could be read, see above"):
        run(model, own, f"query={path}")
    assert "sentinel.tif: bands: nothing says which of 13 bands are red, green and blue; set bands=[3,2,1] or so" in (
        capsys.readouterr().out
    )
    run(model, own, f"query={path}", "bands=[4,3,2]", "range=[0,3000]")
    shown = np.asarray(Image.open(own / "out" / "sentinel.overlay.jpg"))
    assert shown.shape == (40, 40, 3)
    with pytest.raises(ValueError, match=r"bands: expected one or three numbers of bands from 1, .* got \[4, 3\]"):
        run(model, own, "bands=[4,3]")


def test_queries_of_one_name_or_of_too_long_ones_are_refused(model, own):
    small = (own / "queries" / "small.png").read_bytes()
    for name in ("one.png", "two.png", f"{'é' * 122}.png"):
        (own / "queries" / name).write_bytes(small)
    told = "query: expected images of different names, as their masks have, got .*one.jpg and .*one.png; .*two.JPG and"
    with pytest.raises(
        RefusedError, match=rf"{told}.*two.png; rename one\n  query: expected names of at most 243 bytes"
    ):
        run(model, own)
    assert not (own / "out").exists()


def test_a_name_as_long_as_can_be_is_answered(model, own):
    name = "x" * 243
    (own / f"{name}.png").write_bytes((own / "queries" / "small.png").read_bytes())
    run(model, own, f"query={own}/{name}.png")
    assert set(masks(own)) == {f"{name}.png"}


def test_answers_are_no_queries_of_a_pattern(model, own, capsys):
    wanted = f"query={own}/queries/**/*.*"
    for name in ("broken.jpg", "raw.cr2"):
        (own / "queries" / name).unlink()
    for again in range(2):
        run(model, own, wanted, f"out={own}/queries/masks", "overwrite=true")
        told = capsys.readouterr().out
        assert "predict: 3 of 3 images" in told
        assert (f"left out, answers of this command: {own}/queries/masks" in told) == bool(again)


@pytest.mark.parametrize("form", ["white", "colour", "palette", "jpeg", "float", "alpha"])
def test_a_mask_is_the_same_however_it_is_written(model, own, form):
    run(model, own)
    expected = masks(own)["one.png"]
    grey = np.asarray(Image.open(own / "a.png"))
    (own / "mask").mkdir()
    written = {
        "white": (Image.fromarray(grey // 255), "m.png"),
        "colour": (Image.fromarray(np.repeat(grey[..., None], 3, 2)), "m.bmp"),
        "palette": (Image.fromarray(np.repeat(grey[..., None], 3, 2)).quantize(2), "m.gif"),
        "jpeg": (Image.fromarray(grey), "m.jpg"),
        "float": (Image.fromarray(grey / np.float32(255) * np.float32(0.97)), "m.tif"),
        "alpha": (Image.fromarray(np.dstack([np.full((96, 96, 3), 255, np.uint8), grey])), "m.png"),
    }
    image, name = written[form]
    image.save(own / "mask" / name, **({"quality": 95} if form == "jpeg" else {}))
    run(model, own, f"support_mask={own}/mask/{name}", "overwrite=true")
    np.testing.assert_array_equal(masks(own)["one.png"], expected)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros((96, 96), np.uint8), r"a\.png: expected a mask that shows the thing, got only background; paint it"),
        (
            np.arange(96 * 96, dtype=np.uint8).reshape(96, 96) % 4,
            r"a\.png: expected a mask of 0 and one other value, got",
        ),
        (np.ones((50, 40), np.uint8), r"a\.jpg: expected a mask of 96x96 like its image, got 40x50"),
        (
            np.random.default_rng(0).integers(0, 9, (96, 96, 3), np.uint8),
            r"a\.png: .*a mask of black and one other col",
        ),
    ],
    ids=["empty", "many values", "another size", "colours"],
)
def test_unusable_masks_are_explained(model, own, mask, told):
    Image.fromarray(mask).save(own / "a.png")
    with pytest.raises(ValueError, match=told):
        run(model, own)


def test_frames_of_a_video_are_images_like_others(model, own, capsys):
    write(own / "my.clip.mp4")
    run(model, own, f"query=[{own / 'a.jpg'},{own / 'my.clip.mp4'}]", "every=2")
    assert list(masks(own)) == ["a.png", *(f"my.clip-00000{number}.png" for number in (1, 3, 5))]
    assert "predict: 4 of 4 images" in capsys.readouterr().out
    with pytest.raises(ValueError, match="already holds masks of these images"):
        run(model, own, f"query={own / 'my.clip.mp4'}")


def test_a_key_of_videos_is_refused_for_images(model, own):
    with pytest.raises(ValueError, match="every: expected a video among the queries, got every=2 and images alone"):
        run(model, own, "every=2")


def test_what_is_not_there_or_broken_is_named(model, own, tmp_path):
    with pytest.raises(RefusedError, match=r"expected an image at .*absent\.jpg, there is no such file"):
        run(model, own, f"support={own}/absent.jpg")
    with pytest.raises(ValueError, match=r"broken\.jpg: truncated"):
        run(model, own, f"support={own}/queries/broken.jpg")
    with pytest.raises(
        ValueError, match=r"expected an image, a video or a folder of images at query=.*/absent, found none"
    ):
        run(model, own, f"query={own}/absent")
    with pytest.raises(ValueError, match=r"expected an exported model .* the train stage writes one"):
        run(tmp_path / "own", own)


def test_sync_without_journals_or_server(tmp_path):
    with pytest.raises(
        RefusedError, match=r"expected journals \(\*\.jsonl\) in .*/run/tracking, found none; check root="
    ):
        sync.send(load([f"root={tmp_path}"]))
    folder = tmp_path / "run" / "tracking"
    folder.mkdir(parents=True)
    from cluster.tracking.journal import Journal

    with Journal(folder, "pipeline") as journal:
        journal.metrics({"a": 1.0}, step=0)
    with pytest.raises(ValueError, match=r"could not send everything to http://127\.0\.0\.1:9; nothing is lost"):
        sync.send(load([f"root={tmp_path}", "tracking.uri=http://127.0.0.1:9"]))
