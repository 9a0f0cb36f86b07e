import logging
import os
import subprocess
import sys

import pytest

from cluster.config import baselines, episodes, seeds, shots
from fss import heads
from jobs._config import CONF, load

PRESETS = [
    f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "experiment"
]
EXPERIMENTS = sorted(path.stem for path in CONF.glob("experiment/*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_loads(name):
    config = load([f"experiment={name}"])
    assert config.name == name
    assert min(shots(config)) >= 1


@pytest.mark.parametrize("name", sorted(set(heads.names()) - set(heads.training_free())))
def test_every_head_goes_with_refined_tasks(name, caplog):
    """The +refine variant of a method: tasks and read-out by the recipe, all else as its own preset has it."""
    with caplog.at_level(logging.INFO):
        config, alone = load(["experiment=refined", f"model={name}"]), load([f"model={name}"])
    recipe = {"residual": "corpus_readout", "by_shots": True, "otsu": 0.3}
    assert config.model.options == alone.model.options | recipe
    assert (config.refine.name, config.pair.inside) == ("consensus", 0.5)
    assert caplog.text == ""


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_loads(preset):
    group, name = preset.split("=")
    config = load([preset])
    if group in ("backbone", "model", "dataset", "protocol"):
        assert name.startswith(getattr(config, group).name.partition("/")[0])
    else:
        assert hasattr(config, group)


def test_any_network_of_timm_is_a_backbone():
    config = load(["backbone=timm/resnet50", "backbone.size=449"])
    assert (config.backbone.name, config.backbone.stride, config.backbone.size) == ("timm/resnet50", None, 449)


def test_there_are_presets_to_test():
    assert {"tiny", "demo", "photos"} <= set(EXPERIMENTS)
    assert len(PRESETS) > 10


def test_overrides_win_over_the_experiment():
    config = load(["experiment=tiny", "seed=7", "train.lr=0.5", "source.granularities=[2,4]", "model.options.dim=8"])
    assert (config.seed, config.train.lr, config.source.granularities) == (7, 0.5, [2, 4])
    assert config.model.options["dim"] == 8
    assert config.episodes == 8  # of the experiment
    assert config.pair.nearest == 0.5  # of cluster/config/


WRONG = {
    "wrong key": ("train.step=3", "there is no key 'train.step'; did you mean train.steps"),
    "wrong top-level key": ("sed=3", "there is no key 'sed'; did you mean seed"),
    "wrong group": ("backbones=small", "did you mean"),
    "wrong option": (
        "backbone=resnet5",
        "backbone: expected one of deeplabv3, deeplabv3plus, mobilenet_v2, resnet101, resnet101_linear, resnet18, "
        "resnet18_linear, resnet50, resnet50_linear, small, timm, vgg16, vit_base, vit_small, "
        "got 'resnet5'; did you mean 'resnet50'?",
    ),
    "wrong experiment": ("experiment=tinny", "got 'tinny'; did you mean 'tiny'?"),
    "text for a number": ("train.steps=many", "train.steps"),
    "fraction for a whole number": ("train.batch=2.5", "train.batch"),
    "text for a switch": ("save_predictions=perhaps", "save_predictions"),
    "out of range": ("train.batch=0", "train.batch: expected at least 1, got 0"),
    "negative": ("source.clusters=-4", "source.clusters: expected at least 1, got -4"),
    "not a number": ("train.lr=nan", "train.lr: expected a positive number, got nan"),
    "share": ("pair.nearest=1.5", "pair.nearest: expected a share in (0, 1], got 1.5"),
    "order of areas": ("pair.min_area=0.9", "expected 0 <= min_area < max_area <= 1, got 0.9, 0.7"),
    "decay": ("train.ema=1", "train.ema: expected a decay in [0, 1), got 1"),
    "choice": ("train.loss=focal", "train.loss: expected one of cross_entropy, dice, cross_entropy_dice, got 'focal'"),
    "choice in a list": ("source.levels=[mid,top]", "source.levels[1]: expected one of low, mid, high, got 'top'"),
    "ZeRO stage": ("train.zero_stage=4", "train.zero_stage: expected one of 0, 1, 2, 3, got 4"),
    "bf16 without ZeRO": (
        ["train.precision=bf16", "train.zero_stage=0"],
        "train.zero_stage: expected 1, 2 or 3 with train.precision=bf16, got 0",
    ),
    "fold": ("fold=-1", "fold: expected a number from 0 or all, got -1"),
    "fold in words": ("fold=each", "fold: expected a number from 0 or all, got 'each'"),
    "list of folds": ("fold=[0,1]", "fold: expected a number from 0 or all, got [0, 1]"),
    "no shots": ("shots=[]", "shots: expected a number from 1 or a list of different ones, got []"),
    "shots in words": ("shots=five", "shots: expected a number from 1 or a list of different ones, got 'five'"),
    "shots of zero": ("shots=[1,0]", "shots: expected a number from 1 or a list of different ones, got [1, 0]"),
    "half a shot": ("shots=1.5", "shots: expected a number from 1 or a list of different ones, got 1.5"),
    "shots twice": ("shots=[1,5,1]", "shots: expected a number from 1 or a list of different ones, got [1, 5, 1]"),
    "no seeds": ("seeds=[]", "seeds: expected a number from 0 or a list of different ones, got []"),
    "no seeds of the protocol": (
        "protocol.seeds=[]",
        "seeds: expected a number from 0 or a list of different ones, got []",
    ),
    "seeds twice": ("seeds=[2,2]", "seeds: expected a number from 0 or a list of different ones, got [2, 2]"),
    "negative seed": ("seeds=-1", "seeds: expected a number from 0 or a list of different ones, got -1"),
    "no episodes": ("episodes=0", "episodes: expected at least 1, got 0"),
    "no episodes of the protocol": (
        ["episodes=null", "protocol.episodes.default=0"],
        "episodes: expected at least 1, got 0",
    ),
    "no ways": ("ways=0", "ways: expected at least 1, got 0"),
    "resolution": ("protocol.resolution=0", "protocol.resolution: expected at least 1, got 0"),
    "order": (
        "protocol.order=random",
        "protocol.order: expected one of classes, pairs, images, random_images, got 'ran",
    ),
    "protocol": ("protocol=hsnets", "got 'hsnets'; did you mean 'hsnet'?"),
    "selection": ("select=test", "select: expected one of holdout, base_classes, test_classes, got 'test'"),
    "baseline": ("baselines=[prototype,smooth]", "baselines: smooth: expected one of "),
    "trained baseline": ("baselines=umtfss", "baselines: umtfss: expected one of "),
    "granularity": ("source.granularities=[3,0]", "source.granularities[1]: expected at least 1, got 0"),
    "search": ("pair.similarity=fast", "pair.similarity: expected one of exact, sampled, got 'fast'"),
    "balance": ("pair.balance=regions", "pair.balance: expected one of images, clusters, got 'regions'"),
    "kept clusters": ("pair.keep_clusters=0", "pair.keep_clusters: expected a share in (0, 1], got 0"),
    "distractors": ("pair.distractors=-1", "pair.distractors: expected a number from 0, got -1"),
    "no layers": ("pair.layers=[]", "pair.layers: expected numbers from 0, or null for all layers, got []"),
    "repeats": ("pair.repeats=0", "pair.repeats: expected at least 1, got 0"),
    "repeats in a stream": (
        ["pair.repeats=2", "train.tasks=stream"],
        "pair.repeats: expected null with train.tasks=stream, which pairs anew in every epoch, got 2",
    ),
    "parts of a batch": (
        "train.accumulate=3",
        "train.batch: expected a multiple of cluster.train_workers=1 times train.accumulate=3, got 4",
    ),
    "SGD's rate": ("train.sgd_lr=0", "train.sgd_lr: expected a positive number, got 0"),
    "negative clip": ("train.clip=-1", "train.clip: expected a number from 0, got -1"),
    "optimiser": ("train.optimizer=adam", "train.optimizer: expected one of adamw, sgd, mixed, got 'adam'"),
    "schedule": ("train.schedule=linear", "train.schedule: expected one of cosine, poly, step, constant, got 'linear'"),
    "tuning of cached features": (
        ["train.tune=[net]", "train.features=cached"],
        "train.features: expected fresh with train.tune",
    ),
    "tuning and labels": (
        ["train.tune=[net]", "train.features=fresh", "select=test_classes"],
        "select: expected holdout with train.tune, got test_classes",
    ),
    "checkpointing of nothing": (
        "train.gradient_checkpointing=true",
        "train.gradient_checkpointing: expected false without train.tune",
    ),
    "a head's option": (["model=sst", "model.options.fusion=sum"], "fusion: expected one of iou, mean, max, got 'sum'"),
    "no option of the head": (
        ["+model.options.heads=3", "model=sst"],
        "model.options.heads: expected one of residual, by_shots, otsu, own, levels, dim,",
    ),
    "compiled inner gradient": (
        ["model=sst", "train.compile=true"],
        "train.compile: expected false with model=sst, which takes a gradient inside of its forward pass",
    ),
    "shares above 1": (
        "train.mix={runs/a:0.7,runs/b:0.4}",
        "train.mix: expected shares of at most 1 together, got 1.1",
    ),
    "share too fine": (
        "train.mix={runs/a:0.33333}",
        "train.mix: expected a share in thousandths from 0.001 to 1 for runs/a, got 0.33333",
    ),
    "registered path": ("train.register=a/b", "train.register: expected a name without / and :, got 'a/b'"),
    "registry without tracking": (
        ["train.register=fss", "tracking.enabled=false"],
        "train.register: expected tracking.enabled=true",
    ),
    "alias of nothing": ("train.alias=best", "train.alias: expected train.register beside it, got 'best' alone"),
    "reserved alias": (
        ["train.register=fss", "train.alias=v3"],
        "train.alias: expected letters, digits, _ and -, and neither latest nor a v with a number, got 'v3'",
    ),
    "uneven batch": ("cluster.train_workers=3", "train.batch: expected a multiple of cluster.train_workers=3, got 4"),
}


@pytest.mark.parametrize(("argument", "told"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_explained(argument, told):
    arguments = [argument] if isinstance(argument, str) else argument
    experiment = [] if arguments[0].startswith("experiment") else ["experiment=tiny"]
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        load([*experiment, *arguments])
    assert told in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match="the configuration cannot work") as error:
        load(["experiment=tiny", "train.batch=0", "train.lr=-1", "fold=-9"])
    for key in ("train.batch:", "train.lr:", "fold:"):
        assert key in str(error.value)


@pytest.mark.parametrize("argument", ["train.steps", "=3", "train.steps=[1"])
def test_what_is_no_assignment_is_refused(argument):
    with pytest.raises(ValueError):  # noqa: PT011 - Hydra's own words
        load(["experiment=tiny", argument])


def test_model_folder_means_an_exported_model(tmp_path):
    config = load(["experiment=tiny", f"model={tmp_path}"])
    assert (config.model.name, config.model.path) == ("trained", str(tmp_path))
    assert load(["experiment=tiny", "model=prototype"]).model.path is None
    with pytest.raises(ValueError, match=r"model: expected one of .*prototype, .*trained, umtfss.*, got 'pfenets'"):
        load(["model=pfenets"])


def test_options_of_the_tiny_model_are_its_own():
    assert load(["experiment=tiny"]).model.options["dim"] == 16
    assert load(["experiment=tiny", "model=prototype"]).model.options == {}
    assert load(["experiment=tiny", "model=correlation"]).model.options["dim"] == 48


@pytest.mark.parametrize("preset", sorted({path.stem for path in CONF.glob("model/*.yaml")} - {"trained"}))
def test_every_model_preset_can_be_built(preset):
    model = load([f"model={preset}"]).model
    assert heads.build(model.name, model.options, {"low": 8, "mid": 8, "high": 8}, corners=True)


def test_numbers_and_lists_of_them():
    config = load(["shots=5", "seed=3", "baselines=smoothed"])
    assert (shots(config), seeds(config), baselines(config)) == ((5,), (3,), ("smoothed",))
    config = load(["shots=[5,1]", "seeds=[0,2]", "seed=3", "baselines=[smoothed,prototype,smoothed]"])
    assert (shots(config), seeds(config), baselines(config)) == ((5, 1), (0, 2), ("smoothed", "prototype"))
    assert baselines(load(["baselines=[]"])) == ()
    assert baselines(load(["baselines=[smoothed,anchors,insid3]"])) == ("smoothed", "foris", "insid3")
    assert baselines(load([])) is None
    assert seeds(load(["seeds=4"])) == (4,)


@pytest.mark.parametrize(
    ("protocol", "pascal", "coco", "lists"),
    [
        ("ours", 1000, 1000, (8,)),  # of `seed`
        ("hsnet", 1000, 1000, (0,)),
        ("pfenet", 5000, 20000, (321,)),
        ("mining", 1000, 4000, (0, 1, 2, 3, 4)),
        ("masksplit", 2500, 2500, (202, 203, 204, 205, 206)),
        ("pixel_meta", 1000, 1000, (0, 1, 2, 3, 4)),
    ],
)
def test_protocols_say_how_many_episodes(protocol, pascal, coco, lists):
    for dataset, number in (("pascal5i", pascal), ("coco20i", coco)):
        config = load([f"protocol={protocol}", f"dataset={dataset}", "seed=8"])
        assert (episodes(config), seeds(config)) == (number, lists)
    config = load([f"protocol={protocol}", "dataset=coco20i", "seeds=[5,6]", "episodes=9"])
    assert (episodes(config), seeds(config)) == (9, (5, 6))


def test_exit_status_2_before_any_work(tmp_path):
    command = [sys.executable, "-m", "jobs.pipeline", "experiment=tiny", f"root={tmp_path}/runs", "train.stepz=3"]
    done = subprocess.run(command, cwd=CONF.parent, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: there is no key 'train.stepz'; did you mean train.steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
