"""The prepare command: masks from COCO's JSON and SBD's .mat files, counts, and what is said about them."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cluster.evaluate import counts
from cluster.evaluate.counts import Fold, Known
from fss.datasets.parts import instances
from jobs.prepare import COMMAND, prepare
from tests.fss.datasets import test_fss1000
from tests.fss.datasets.test_coco import STEM, annotation, box, write_json

SIZE = (5, 4)  # width, height


def run(*arguments, workers=1):
    prepare(COMMAND.load([*arguments, f"cluster.workers={workers}", "dataset.min_area=4"]))


def read(path):
    return np.asarray(Image.open(path)).tolist()


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def write_voc(root, own=("a", "b"), sbd=("b", "c")):
    """VOC's masks show class 1 with a void ring, SBD's class 2; image c has SBD's alone, `lost` no photo."""
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n")
    for folder in ("JPEGImages", "SegmentationClass", "benchmark_RELEASE/dataset/cls"):
        (root / folder).mkdir(parents=True)
    for stem in ("a", "b", "c"):
        Image.new("RGB", SIZE, (10, 20, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
    for stem in own:
        mask = np.ones((4, 5), np.uint8)
        mask[0] = 255
        palette = Image.fromarray(mask, mode="P")
        palette.putpalette([i // 3 for i in range(768)])
        palette.save(root / "SegmentationClass" / f"{stem}.png")
    for stem in (*sbd, "lost"):
        mask = np.zeros((4, 5), np.uint8)
        mask[:2, :3] = 2
        record = {"Segmentation": mask, "Boundaries": np.zeros((20, 1)), "CategoriesPresent": np.array([[2]])}
        savemat(root / "benchmark_RELEASE" / "dataset" / "cls" / f"{stem}.mat", {"GTcls": record})
    return root


def test_sbd_is_merged_below_vocs_own_masks(tmp_path, capsys):
    root = write_voc(tmp_path / "VOC2012")
    run("dataset=pascal5i", f"dataset.root={root}")
    merged = root / "SegmentationClassAug"
    assert sorted(p.name for p in merged.iterdir()) == ["a.png", "b.png", "c.png"]
    assert read(merged / "b.png") == [[255] * 5, *[[1] * 5] * 3]
    assert read(merged / "c.png") == [[2, 2, 2, 0, 0]] * 2 + [[0] * 5] * 2
    assert {Image.open(p).mode for p in merged.iterdir()} == {"L"}
    told = capsys.readouterr().out
    assert f"{merged}: 3 masks written, 0 were there, 1 without an image left out" in told
    assert "aeroplane 2, bicycle 1, bird 0" in told
    assert "0                          3       3       0" in told
    assert "18 classes are on no image: bird," in told
    assert "published counts are of dataset.min_area=2048: not compared" in told


def test_coco_masks_from_the_json(tmp_path, capsys):
    objects = [annotation(1, [box(0, 0, 3, 2), box(5, 3, 7, 6)]), annotation(90, [box(2, 1, 4, 4)])]
    crowd = annotation(3, {"size": [6, 8], "counts": [0, 48]}, crowd=1)
    write_json(tmp_path, [*objects, crowd, annotation(7, [box(0, 0, 1, 1)], image=43)])
    write_json(tmp_path, [annotation(17, [box(0, 0, 8, 6)])], part="train2014", stems=("COCO_train2014_000000000001",))
    (tmp_path / "val2014" / "COCO_val2014_000000000043.jpg").unlink()  # users hold a part of the images
    run("dataset=coco20i", f"dataset.root={tmp_path}")
    made = tmp_path / "annotations"
    assert [p.name for p in sorted(made.glob("*/*"))] == ["COCO_train2014_000000000001.png", f"{STEM}.png"]
    drawn = instances.paint(instances.load_instances(made / "instances_val2014.json")[STEM])
    assert read(made / "val2014" / f"{STEM}.png") == drawn.tolist()
    assert np.bincount(drawn.reshape(-1), minlength=81)[[0, 1, 80]].tolist() == [31, 11, 6]
    told = capsys.readouterr().out
    assert told.count("1 masks written, 0 were there") == 2
    assert "person 1, bicycle 0, car 0," not in told
    run("dataset=coco20i", f"dataset.root={tmp_path}", "dataset.folds=consecutive")
    assert "person 1, bicycle 0, car 0," in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"dataset\.folds: expected one of interleaved, consecutive, got 'x'"):
        run("dataset=coco20i", f"dataset.root={tmp_path}", "dataset.folds=x")
    assert not capsys.readouterr().out
    for title in ("fold (interleaved)", "fold (consecutive)"):
        assert title in told
    assert "person 1, airplane 0" in told  # of fold 0: 1, 5, ...


def test_a_second_run_keeps_what_is_whole_and_mends_the_rest(tmp_path, capsys):
    root = write_voc(tmp_path)
    run("dataset=pascal5i", f"dataset.root={root}")
    first = tree(root)
    merged = root / "SegmentationClassAug"
    (merged / "a.png").write_bytes((merged / "a.png").read_bytes()[:30])
    (merged / "b.png").unlink()
    Image.new("L", (9, 9)).save(merged / "c.png")
    capsys.readouterr()
    run("dataset=pascal5i", f"dataset.root={root}")
    assert "3 masks written, 0 were there" in capsys.readouterr().out
    assert tree(root) == first
    run("dataset=pascal5i", f"dataset.root={root}")
    assert "0 masks written, 3 were there" in capsys.readouterr().out


def test_an_interrupted_run_leaves_no_folder_of_masks_and_goes_on(tmp_path, capsys, monkeypatch):
    write_json(tmp_path, [annotation(1, [box(0, 0, 3, 2)]), annotation(1, [box(0, 0, 4, 4)], image=43)])
    paint, painted = instances.paint, []

    def breaking(image):
        painted.append(image)
        if len(painted) == 2:
            raise KeyboardInterrupt
        return paint(image)

    monkeypatch.setattr(instances, "paint", breaking)
    with pytest.raises(KeyboardInterrupt):
        run("dataset=coco20i", f"dataset.root={tmp_path}")
    monkeypatch.undo()
    assert not (tmp_path / "annotations" / "val2014").exists()
    capsys.readouterr()
    run("dataset=coco20i", f"dataset.root={tmp_path}")
    assert "1 masks written, 1 were there" in capsys.readouterr().out
    assert len(list((tmp_path / "annotations" / "val2014").iterdir())) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_masks_that_somebody_else_made_are_never_replaced(tmp_path):
    write_json(tmp_path, [annotation(1, [box(0, 0, 3, 2)]), annotation(1, [box(0, 0, 4, 4)], image=43)])
    folder = tmp_path / "annotations" / "val2014"
    folder.mkdir()
    Image.new("RGB", (8, 6), (9, 0, 0)).save(folder / f"{STEM}.png")
    before = tree(folder)
    with pytest.raises(ValueError, match=r"val2014: 1 files, as .*42\.png, are no class masks .* set out=DIR"):
        run("dataset=coco20i", f"dataset.root={tmp_path}")
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["pascal5i", "coco20i"])
def test_out_becomes_a_root_and_the_input_stays_as_it_is(tmp_path, capsys, name):
    root, out = tmp_path / "in", tmp_path / "out"
    if name == "pascal5i":
        write_voc(root)
        masks = "SegmentationClassAug"
    else:
        write_json(root, [annotation(1, [box(0, 0, 3, 2)])])
        masks = "annotations/val2014"
    before = tree(root)
    for _ in range(2):
        run(f"dataset={name}", f"dataset.root={root}", f"out={out}", workers=2)
    assert tree(root) == before
    assert list((out / masks).glob("*.png"))
    written = capsys.readouterr().out
    assert "masks written, 0 were there" in written
    assert "0 masks written" in written
    run(f"dataset={name}", f"dataset.root={out}")


def test_out_is_a_folder_of_its_own(tmp_path):
    root, out = write_voc(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    arguments = "dataset=pascal5i", f"out={out}"
    with pytest.raises(ValueError, match=r"expected a new or empty folder, .*\(prepare\.json\).* thesis\.tex; set"):
        run(*arguments, f"dataset.root={root}")
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    (out / "thesis.tex").unlink()
    with pytest.raises(ValueError, match="expected VOC's images in"):
        run(*arguments, f"dataset.root={tmp_path}")
    run(*arguments, f"dataset.root={root}")
    other = write_voc(tmp_path / "other")
    with pytest.raises(ValueError, match=rf"expected a folder made of .*/other'}}, {out} was made of .*/in'}}; set"):
        run(*arguments, f"dataset.root={other}")


def test_missing_or_damaged_inputs_are_refused(tmp_path):
    def refuses(text, *arguments):
        with pytest.raises(ValueError, match=text):
            run(*arguments)

    refuses("expected the folder of coco20i, got none: give it as dataset.root=FOLDER", "dataset=coco20i")
    refuses("expected VOC's images in", "dataset=pascal5i", f"dataset.root={tmp_path}")
    refuses("expected no out= for folder", "dataset=folder", f"dataset.root={tmp_path}", f"out={tmp_path}/o")
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    refuses(r"expected mask PNGs in .*instances_val2017\.json", "dataset=coco20i", f"dataset.root={tmp_path}/coco")
    root = write_voc(tmp_path / "voc", own=())
    refuses("expected VOC's own masks in .* which go before SBD's", "dataset=pascal5i", f"dataset.root={root}")
    refuses(
        "expected SBD's dataset/cls/.*below .*empty; check dataset.sbd",
        "dataset=pascal5i", f"dataset.root={root}", f"dataset.sbd={tmp_path}/empty",
    )  # fmt: skip
    other = write_voc(tmp_path / "other")
    bad = other / "benchmark_RELEASE" / "dataset" / "cls" / "c.mat"
    for content in (b"", bad.read_bytes()[:200], b"PNG"):
        bad.write_bytes(content)
        refuses(r"c\.mat: expected a MATLAB file of SBD", "dataset=pascal5i", f"dataset.root={other}")
    savemat(bad, {"GTcls": {"Segmentation": np.full((4, 6), 21, np.uint8)}})
    refuses(
        r"c\.mat: expected 5x4 class indices 0..20.*got \(6, 4\) \[21\]", "dataset=pascal5i", f"dataset.root={other}"
    )
    assert not (other / "SegmentationClassAug").exists()


def test_images_that_cannot_be_used_are_named_after_the_others_are_counted(tmp_path, capsys):
    root = write_voc(tmp_path)
    run("dataset=pascal5i", f"dataset.root={root}")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nmissing\nb\n")
    capsys.readouterr()
    with pytest.raises(
        ValueError, match=r"1 of 3 images cannot be used:\n  expected a mask at \S*missing\.png: No such file"
    ):
        run("dataset=pascal5i", f"dataset.root={root}")
    assert "aeroplane 2, bicycle 0" in capsys.readouterr().out


def test_a_set_that_shows_no_class_is_an_error(tmp_path, capsys):
    root = write_voc(tmp_path / "VOC2012")
    for path in (root / "SegmentationClass").iterdir():
        Image.new("L", SIZE).save(path)
    for path in (root / "benchmark_RELEASE" / "dataset" / "cls").iterdir():
        path.unlink()
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"expected classes on at least dataset.min_area=4 pixels of an image, no im"):
        run("dataset=pascal5i", f"dataset.root={root}")
    assert "20 classes are on no image" in capsys.readouterr().out


def test_annotations_of_photos_that_are_not_there_are_counted(tmp_path, capsys):
    write_json(tmp_path, [annotation(1, [box(0, 0, 3, 2)]), annotation(1, [box(0, 0, 4, 4)], image=43)])
    next((tmp_path / "val2014").glob("*43.jpg")).unlink()
    run("dataset=coco20i", f"dataset.root={tmp_path}")
    assert "1 masks written, 0 were there, 1 without an image left out" in capsys.readouterr().out


def test_fss1000_counts(tmp_path, capsys):
    test_fss1000.write(tmp_path, ["cup"], numbers=range(1, 11))
    test_fss1000.write(tmp_path, ["mug"], numbers=(1, 2, 3))
    (tmp_path / "list.txt").write_text("cup\nmug\n")
    prepare(COMMAND.load(["dataset=fss1000", f"dataset.root={tmp_path}", "dataset.list=list.txt", "cluster.workers=1"]))
    told = capsys.readouterr().out
    assert "cup 10, mug 3" in told
    assert "differs: mug: 10 images published, here 3" in told
    assert "2 classes; the published splits have 240 or 520: a part of one" in told


def test_counts_of_a_fold():
    found = {"a": frozenset({1, 2}), "b": frozenset({2, 3}), "c": frozenset({3}), "d": frozenset()}
    assert counts.count(found, (1, 2)) == Fold(images=2, others=2, classes={1: 1, 2: 2})
    assert counts.count(found, (3, 4)) == Fold(images=2, others=2, classes={3: 2, 4: 0})


def test_differences_from_published_counts():
    known = (Known("the list", 4, (2, 2), (2, 2), (1, 2, 2, 0)), Known("the long list", 9, others=(5, 6)))
    folds = [Fold(2, 2, {1: 1, 2: 2}), Fold(2, 2, {3: 2, 4: 0})]
    assert list(counts._compare(known, 4, folds)) == ["all counts are those published for the list"]
    folds[1] = Fold(2, 3, {3: 2, 4: 1})
    assert list(counts._compare(known, 4, folds)) == [
        "differs: images with other classes: published for the list [2, 2], here [2, 3]",
        "differs: images of each class: published for the list [1, 2, 2, 0], here [1, 2, 2, 1]",
    ]
    assert list(counts._compare(known, 9, folds)) == [
        "differs: images with other classes: published for the long list [5, 6], here [2, 3]"
    ]
    assert "3 images are a part of one of the lists" in next(counts._compare(known, 3, folds))
    assert "10 images are more than any of the lists" in next(counts._compare(known, 10, folds))


def test_published_counts_agree_with_themselves():
    val = counts.PASCAL[0]
    by_fold = [sum(val.classes[5 * i : 5 * i + 5]) for i in range(4)]
    assert all(images <= pairs for images, pairs in zip(val.folds, by_fold, strict=True))
    assert by_fold == [365, 467, 734, 357]
    assert all(len(k.folds or k.others) == 4 for k in (*counts.PASCAL, *counts.COCO_2014))


def test_real_photos_are_a_part_of_the_val_list(capsys):
    from tests.places import SHARED

    if not (SHARED / "data/voc2012").is_dir():
        pytest.skip(f"no {SHARED / 'data/voc2012'}")
    prepare(COMMAND.load(["dataset=pascal5i", f"dataset.root={SHARED / 'data/voc2012'}", "cluster.workers=2"]))
    told = capsys.readouterr().out
    assert "335 images are a part of one of the lists with published counts (1449 of PASCAL VOC's val list" in told
