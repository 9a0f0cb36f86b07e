"""Networks of timm of each kind through all stages: labelled, trained on, measured, taken along and used."""

import numpy as np
import pytest
from PIL import Image

from cluster.config.export import ExportConfig
from cluster.serving.export import export
from cluster.serving.predict import predict
from jobs.predict import COMMAND

#: Convolutions, windows, and tokens with and without others before them; of transformers the first blocks.
#: That every family's features are timm's own is shown in tests/fss/backbones/test_timm.py.
KINDS = {
    "timm/mobilenetv4_conv_small_035": ("backbone.size=65", "backbone.debias=0.1"),
    "timm/swin_s3_tiny_224": ("backbone.size=64",),
    "timm/vit_small_patch16_dinov3_qkvb": ("backbone.size=64", "backbone.levels=[1,2,3]", "backbone.debias=0.3"),
    "timm/vit_base_patch16_siglip_224.v2_webli": ("backbone.size=64", "backbone.levels=[1,2,3]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_network_of_timm_goes_all_the_way(configure, start, photos, tmp_path, name):
    names = sorted(path.stem for path in (photos / "JPEGImages").iterdir())[:12]
    (tmp_path / "few.txt").write_text("\n".join(names))
    few = (f"corpus.list={tmp_path}/few.txt", "episodes=4", "shots=[1]", "train.steps=1", "train.holdout=2")
    run = start(configure(tmp_path / "runs", f"backbone={name}", *KINDS[name], *few))
    assert run.ensure("label").counts["regions"] > 0
    assert run.ensure("evaluate").counts["episodes"] > 0
    model, taken, out = run.manifest("train").folder / "model", tmp_path / "taken", tmp_path / "out"
    export(ExportConfig(str(model), "segmenter", str(taken)))
    mask, photo = np.zeros((96, 96), np.uint8), photos / "JPEGImages" / f"{names[0]}.jpg"
    mask[20:60, 30:70] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    given = {"model": taken, "support": photo, "support_mask": tmp_path / "mask.png", "query": photo, "out": out}
    assert list(predict(COMMAND.load([f"{key}={value}" for key, value in given.items()])))
    assert np.asarray(Image.open(out / f"{names[0]}.png")).shape == (96, 96)
