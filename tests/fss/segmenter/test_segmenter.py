"""An exported model: the same masks after the round trip, and a plain word about everything that does not fit."""

import io
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fss import backbones, heads, seals, segmenter
from fss.backbones.extractor import Extractor
from fss.heads.parts.capabilities import Fits, Recalls, SeesBlank
from fss.segmenter import Segmenter
from tests.fss.conftest import noise_image
from tests.places import ROOT

OPTIONS = {
    "correlation": {"dim": 16},
    "umtfss": {"dim": 16, "heads": 2},
    "cluster_match": {"clusters": 1},
    "corpus_readout": {"index_size": 5},
}
SUPPORTS = [noise_image(1, (50, 40)), noise_image(2, (30, 60))]
MASKS = [np.zeros((40, 50), np.uint8), np.zeros((60, 30), np.uint8)]
MASKS[0][10:30, 5:30] = 1
MASKS[1][20:50, 10:] = 1
MASKS[1][:5] = 255


def write(
    folder, name: str = "correlation", facts: Mapping[str, Any] = {"steps": 7}, *, network="small", size=64, **more
):
    """A model with random weights in `folder`, and the head and extractor it was made of."""
    extractor = Extractor(backbones.build(network, seed=1), size=size)
    options = OPTIONS.get(name, {}) | more
    backbone = extractor.backbone
    head = heads.build(name, options, backbone.channels, corners=backbone.corners, seed=1).eval()
    if isinstance(head, Fits):
        head.fit(np.eye(head.centroids.shape[1], dtype=np.float32), seed=0)
    for part in head.modules():
        if isinstance(part, Recalls):
            part.fill(np.random.default_rng(0).normal(size=part.index.swapaxes(0, 1).shape))
    if isinstance(head, SeesBlank):
        head.see_blank(extractor.blank())
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=g))
    files = segmenter.export(head, extractor, {"name": name, "options": options}, facts)
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return head, extractor


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Segmenter:
    folder = tmp_path_factory.mktemp("model")
    write(folder)
    return Segmenter.load(folder, "cpu")


@pytest.mark.parametrize("name", heads.names())
def test_the_round_trip_gives_equal_masks(tmp_path, name):
    head, extractor = write(tmp_path, name)
    loaded = Segmenter.load(tmp_path, "cpu")
    original = Segmenter(head, extractor, {})
    query = noise_image(0, (70, 45))
    expected = original.probabilities(query, SUPPORTS, MASKS)
    assert np.array_equal(loaded.probabilities(query, SUPPORTS, MASKS), expected)
    assert np.array_equal(loaded.segment(query, SUPPORTS, MASKS), original.segment(query, SUPPORTS, MASKS))
    assert expected.std() > 0
    assert loaded.about["facts"] == {"steps": 7}
    assert loaded.about["model"] == {"name": name, "options": heads.complete(name, OPTIONS.get(name, {}))}
    assert loaded.extractor.size == 64
    assert backbones.fingerprint(loaded.extractor.backbone) == loaded.about["backbone"]["fingerprint"]
    assert not loaded.head.training


@pytest.mark.parametrize("name", ["timm/mobilenetv4_conv_small_035", "timm/vit_tiny_patch16_224", "small"])
def test_the_backbone_comes_back_with_its_levels_its_normalisation_and_what_it_takes_out(tmp_path, name):
    transformer = name == "timm/vit_tiny_patch16_224"
    own = {"levels": [1, 2, 3], "artefacts": 1.02} if transformer else {}
    backbone = backbones.build(name, seed=1, **own)
    size = 64 + backbone.corners
    backbone.take_position_out(size, 0.2)
    head = heads.build("prototype", {}, backbone.channels, corners=backbone.corners)
    for file, data in segmenter.export(
        head, Extractor(backbone, size), {"name": "prototype", "options": {}}, {}
    ).items():
        (tmp_path / file).write_bytes(data)
    loaded = Segmenter.load(tmp_path, "cpu").extractor.backbone
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(values, loaded(image)[level]) for level, values in backbone(image).items())
    assert backbones.fingerprint(loaded) == backbones.fingerprint(backbone)
    assert loaded.report.unexpected == ()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_model_stretches_images_as_its_backbone_did(tmp_path, interpolation):
    backbone = backbones.build("small", seed=1, interpolation=interpolation)
    head = heads.build("prototype", {}, backbone.channels, corners=backbone.corners)
    model, extractor = {"name": "prototype", "options": {}}, Extractor(backbone, 64)
    for file, data in segmenter.export(head, extractor, model, {}).items():
        (tmp_path / file).write_bytes(data)
    loaded = Segmenter.load(tmp_path, "cpu")
    assert torch.equal(loaded.extractor([SUPPORTS[0]])["high"], extractor([SUPPORTS[0]])["high"])
    assert f"stretched to 64 x 64 pixels, {interpolation}, with" in (tmp_path / "README.md").read_text()
    about = json.loads((tmp_path / "model.json").read_text())
    del about["seal"], about["backbone"]["interpolation"]  # as before there was a choice
    (tmp_path / "model.json").write_text(json.dumps(seals.sealed({**about, "format": 2})))
    assert Segmenter.load(tmp_path, "cpu").extractor.backbone.interpolation == "bilinear"


def test_the_page_says_which_formats_are_read():
    told = (ROOT / "docs" / "export.md").read_text()
    assert f"number of its format, now {segmenter.FORMAT}." in told
    assert segmenter._OLDEST == segmenter.FORMAT - 1
    assert f"Format {segmenter._OLDEST} is read too. Format {segmenter._OLDEST - 1} is refused" in told


def test_the_same_model_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    for file in ("model.safetensors", "backbone.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_json_vouches_for_the_other_files_and_comes_last(tmp_path):
    head, extractor = write(tmp_path)
    files = segmenter.export(head, extractor, {"name": "correlation", "options": {"dim": 16}}, {})
    assert list(files)[-1] == "model.json"
    assert tuple(files) == segmenter.FILES
    assert set(json.loads(files["model.json"])["sha256"]) == {"model.safetensors", "backbone.safetensors"}


def test_a_candidates_weights_take_the_place_of_the_heads(tmp_path):
    first, _ = write(tmp_path / "model")
    other = heads.build(
        "correlation", {"dim": 16}, Extractor(backbones.build("small"), size=64).backbone.channels, corners=True, seed=2
    )
    candidate = tmp_path / "candidate.safetensors"
    candidate.write_bytes(segmenter.weights_bytes(other))
    loaded = Segmenter.load(tmp_path / "model", "cpu", weights=candidate)
    assert segmenter.weights_bytes(loaded.head) == candidate.read_bytes() != segmenter.weights_bytes(first)
    for damaged in (candidate.read_bytes()[:50], (tmp_path / "model/backbone.safetensors").read_bytes()):
        candidate.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"candidate.safetensors: expected the weights of this model's head, got"):
            Segmenter.load(tmp_path / "model", "cpu", weights=candidate)


def test_masks_are_of_the_querys_size_and_cut_at_the_threshold(model):
    query = noise_image(0, (37, 91))
    chances = model.probabilities(query, SUPPORTS, MASKS)
    assert chances.shape == (91, 37)
    assert chances.dtype == np.float32
    assert chances.min() >= 0
    assert chances.max() <= 1
    middle = float(np.median(chances))
    found = model.segment(query, SUPPORTS, MASKS, threshold=middle, edges=False)
    assert found.dtype == np.uint8
    assert np.array_equal(found, chances > middle)


def test_segmenting_twice_gives_the_same(model):
    query = noise_image(0)
    first = model.probabilities(query, SUPPORTS, MASKS)
    model.probabilities(noise_image(5), SUPPORTS[:1], MASKS[:1])
    assert np.array_equal(first, model.probabilities(query, SUPPORTS, MASKS))


@pytest.mark.parametrize(
    ("supports", "masks", "says"),
    [
        ([], [], "expected as many masks as supports and at least one, got 0 and 0"),
        (SUPPORTS, MASKS[:1], "expected as many masks as supports and at least one, got 2 and 1"),
        (SUPPORTS, MASKS[::-1], "support 0: expected a mask of 50x40 like its image, got 30x60"),
        (
            SUPPORTS,
            [MASKS[0], MASKS[1] * 2],
            "support 1's mask: expected a mask of 0 and one other value, got [0, 2, 254]; keep one class",
        ),
        (SUPPORTS[:1], [MASKS[0] * 0], "expected a support mask that shows the thing, got only background"),
    ],
)
def test_supports_that_do_not_fit_are_refused(model, supports, masks, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        model.segment(noise_image(0), supports, masks)


def test_images_and_masks_come_in_any_form(model, tmp_path):
    """Paths, bytes, modes of Pillow, arrays and tensors of one picture and its mask: the same answer."""
    query, photo, drawn = noise_image(0), SUPPORTS[0].convert("L"), MASKS[0]
    rgb = photo.convert("RGB")
    expected = model.segment(query, [rgb], [drawn])
    photo.save(tmp_path / "photo.png")
    Image.fromarray(drawn * 255).save(tmp_path / "mask.png")
    chw = torch.from_numpy(np.asarray(rgb).copy()).permute(2, 0, 1)
    file = tmp_path / "photo.png"
    shown = [photo, photo.convert("P"), rgb.convert("RGBA"), np.asarray(photo), np.asarray(rgb) / np.float32(255), chw,
             chw[:1], file, str(file), file.read_bytes()]  # fmt: skip
    for support in shown:
        np.testing.assert_array_equal(model.segment(query, [support], [drawn]), expected)
    painted = [drawn * 255, drawn == 1, drawn.astype(np.float32), torch.from_numpy(drawn)[None], drawn[..., None],
               np.repeat(drawn[..., None] * 255, 3, 2), Image.fromarray(drawn * 255), tmp_path / "mask.png",
               Image.fromarray(drawn * 255).convert("1"), Image.fromarray(drawn * 255).convert("RGB")]  # fmt: skip
    for mask in painted:
        np.testing.assert_array_equal(model.segment(query, [rgb], [mask]), expected)
    asked = np.asarray(query)
    np.testing.assert_array_equal(model.segment(asked, [rgb], [drawn]), expected)
    with pytest.raises(ValueError, match=r"query: expected a path, bytes, .* got list"):
        model.segment([query], [rgb], [drawn])


def test_one_support_needs_no_list(model, tmp_path):
    query, photo, drawn = noise_image(0), SUPPORTS[0], Image.fromarray(MASKS[0] * 255)
    photo.save(tmp_path / "photo.png")
    drawn.save(tmp_path / "mask.png")
    expected = model.segment(query, [photo], [drawn])
    alone = [(photo, drawn), (str(tmp_path / "photo.png"), tmp_path / "mask.png"), ((p for p in [photo]), (drawn,))]
    for support, mask in alone:
        np.testing.assert_array_equal(model.segment(query, support, mask), expected)


def test_arrays_are_one_picture_or_several_by_their_axes(model):
    """Rows of one picture were taken for pictures: refused where the mask was not, and else an answer of nonsense."""
    query, first, drawn = noise_image(0), np.asarray(SUPPORTS[0]), MASKS[0]
    expected = model.segment(query, [first], [drawn])
    tensor = torch.from_numpy(first.copy()).permute(2, 0, 1)
    for mask in (drawn, drawn[None], drawn[..., None], np.repeat(drawn[..., None] * 255, 3, 2)):
        for support in (first, tensor, first[None], tensor[None]):
            np.testing.assert_array_equal(model.segment(query, support, mask), expected)
    thing = model.prepare(first, drawn)
    for asked in (query, np.asarray(query), np.asarray(query)[None]):
        (answer,) = thing.stream(asked)
        np.testing.assert_array_equal(answer.mask(), expected)
    three, masks = ([one, one[::-1], one[:, ::-1]] for one in (first, drawn))
    expected = model.segment(query, three, masks)
    np.testing.assert_array_equal(model.segment(query, np.stack(three), np.stack(masks)), expected)


@pytest.mark.parametrize("wrong", [None, 3, {"image": 1}, io.BytesIO(b"file")])
def test_what_is_no_picture_is_called_so(model, wrong):
    with pytest.raises(ValueError, match=f"support 0: expected a path, bytes, .* got {type(wrong).__name__}"):
        model.prepare(wrong, MASKS[0])


@pytest.mark.parametrize("threshold", [0, 1, 2, -0.5, float("nan")])
def test_a_threshold_that_no_chance_can_pass_is_refused(model, threshold):
    with pytest.raises(ValueError, match=r"threshold: expected a probability in \(0, 1\), got"):
        model.segment(noise_image(0), SUPPORTS, MASKS, threshold)


def test_a_turned_photo_is_answered_upright(model):
    """EXIF 6: the camera was turned; the mask was drawn on the stored pixels."""
    stored, upright = SUPPORTS[0], SUPPORTS[0].transpose(Image.Transpose.ROTATE_270)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    photo = buffer.getvalue()
    expected = model.segment(upright, [upright], [np.rot90(MASKS[0], -1)])
    assert expected.shape == (50, 40)
    np.testing.assert_array_equal(model.segment(photo, [photo], [MASKS[0]]), expected)
    opened = Image.open(io.BytesIO(photo))
    np.testing.assert_array_equal(model.segment(opened, [opened], [MASKS[0]]), expected)


@pytest.mark.parametrize("file", ["model.safetensors", "backbone.safetensors"])
def test_damaged_and_missing_files_are_refused(tmp_path, file):
    write(tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[-5] ^= 1
    (tmp_path / file).write_bytes(bytes(data))
    says = rf"{re.escape(file)} is missing or damaged: expected sha256 [0-9a-f]{{12}}; export the model again"
    with pytest.raises(ValueError, match=says):
        Segmenter.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=says):
        Segmenter.load(tmp_path)


def test_a_damaged_or_foreign_json_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "model.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.json: expected a sealed .*, got a damaged file .*; export "):
        Segmenter.load(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"got a damaged file; export the model again"):
        Segmenter.load(tmp_path)
    path.write_text(whole.replace('"stride": 8', '"stride": 4'))
    assert path.read_text() != whole
    with pytest.raises(ValueError, match=r"got a damaged file; export the model again"):
        Segmenter.load(tmp_path)
    path.write_text('{"format": 1, "sha256": {}}')
    with pytest.raises(ValueError, match=r"got format 1, which has no seal; export the model again"):
        Segmenter.load(tmp_path)
    path.write_text(json.dumps(seals.sealed(json.loads(whole) | {"format": 99})))
    with pytest.raises(ValueError, match=r"model\.json: expected format 3, got 99; install a newer version of this "):
        Segmenter.load(tmp_path)
    path.write_text(json.dumps(seals.sealed(json.loads(whole) | {"format": 1})))
    with pytest.raises(ValueError, match=r"model\.json: expected format 3, got 1; export the model again"):
        Segmenter.load(tmp_path)
    path.write_text(json.dumps(seals.sealed(json.loads(whole) | {"sha256": {}})))
    with pytest.raises(ValueError, match=r"model\.safetensors is missing or damaged"):
        Segmenter.load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"expected an exported model \(model\.json\) in "):
        Segmenter.load(tmp_path)


def test_find_takes_the_folder_itself_its_model_or_the_newest_below(tmp_path):
    for number, run in enumerate(("old", "new")):
        write(tmp_path / "runs" / run / "model")
        os.utime(tmp_path / "runs" / run / "model" / "model.json", (number, number))
    old, new = (tmp_path / "runs" / run / "model" for run in ("old", "new"))
    assert segmenter.find(old) == old
    assert segmenter.find(str(tmp_path / "runs" / "old")) == old
    assert segmenter.find(tmp_path / "runs") == new
    with pytest.raises(ValueError, match=r"expected an exported model \(a folder with model\.json\) at "):
        segmenter.find(tmp_path / "nothing")
