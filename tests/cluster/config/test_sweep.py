"""Every key either changes a fingerprint or is operational: no stage can read a key that it does not hash.

Each key of each base is set to another valid value; fingerprints alone are computed, nothing is run.
"""

import contextlib
import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest

from cluster.config import build, contradictions
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.label import sources
from cluster.stages import STAGES
from fss import choices, keys, seals, shards
from fss.scenes import scene as scenes
from fss.scenes.scene import CLASSES
from fss.segmenter import FORMAT
from jobs._config import load

#: Keys that shape no byte, each with the reason; a name that ends in `.` is a whole group.
OPERATIONAL = {
    "name": "where the run writes",
    "root": "where runs write",
    "out": "where results are copied to",
    "stale": "whether what is there is used",
    "cluster.": "machines: results are the same whoever computes them",
    "tracking.": "metrics are copies",
    "plan.": "of jobs.plan, which no stage reads",
    "quality.enabled": "whether a stage is run, not what it makes",
    "dataset.sbd": "of jobs.prepare, which no stage reads",
    "pretrain.log_every": "how often progress is told",
    "pretrain.checkpoint_every": "how much a crash costs",
    "train.zero_stage": "what is divided among workers, whose sums are the same up to rounding",
    "train.accumulate": "parts of a batch, whose sums are the same up to rounding",
    "train.gradient_checkpointing": "memory against time",
    "train.compile": "the same sums in other kernels, up to rounding",
    "train.cache_gib": "what does not fit is computed again",
    "train.checkpoint_every": "how much a crash costs",
    "train.keep_checkpoints": "how far a run can go back",
    "train.log_every": "how often progress is told",
    "train.loader_workers": "who reads",
    "train.examples": "pictures for the journal",
    "train.register": "a copy in MLflow",
    "train.alias": "a name in MLflow",
    "train.max_failures": "how often a crash is forgiven",
}

SMALL = ["experiment=tiny", "backbone.weights=random", "tracking.enabled=false"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files that configurations name, two of each kind, by name."""
    base = tmp_path_factory.mktemp("sweep")
    for name, number in (("photos", 12), ("others", 14)):
        scenes.write(base / name, number, seed=5, size=64, val=1 / 2)
    names = [f"{number:06d}" for number in range(6)]
    rows = "".join(f"{name}.jpg,{names[-1 - place]}.jpg\n" for place, name in enumerate(names[:4]))
    (base / "list.csv").write_text("path,url\n" + rows + "memory://a.jpg,memory://b.jpg\n")
    (base / "other.csv").write_text("path,url\n" + rows[: len(rows) // 2])
    (base / "trained.txt").write_text("\n".join(names[:3]))
    classes = ["zebra", f"big_{CLASSES[0]}", *(f"thing{number}" for number in range(998))]
    for name, seed in (("words.vec", 0), ("other.vec", 1)):
        generator = np.random.default_rng(seed)
        spelled = dict.fromkeys(word.replace(" ", "_") for word in (*CLASSES, "cup", "boat", *classes))
        (base / name).write_text("".join(f"{w} {' '.join(map(str, generator.normal(size=3)))}\n" for w in spelled))
    (base / "classes.txt").write_text("\n".join(classes))
    (base / "reversed.txt").write_text("\n".join(classes[::-1]))
    (base / "names.csv").write_text(
        "".join(f"{name}.jpg,{('cup', 'boat')[place % 2]}\n" for place, name in enumerate(names))
    )
    shutil.copytree(base / "photos/SegmentationClass", base / "maps")
    (base / "maps" / f"{names[0]}.png").unlink()
    for name in ("first", "second"):
        _exported(base / name, name.encode())
        for stage in ("shard", "pair"):
            _finished(base / f"run-{name}", stage, name)
    for name in ("one", "two"):
        (base / f"{name}.parquet").write_bytes(name.encode())
    (base / "pairs").mkdir()
    (base / "pairs" / "fold0.txt").write_text("a__01\nb__01\n")
    return base


def _exported(folder, weights):
    about = {"format": FORMAT, "model": {"name": "mining", "options": {"levels": ["mid"]}}, "facts": {}, "backbone": {}}
    about |= {"sha256": {"model.safetensors": shards.sha256(weights)}}
    publish.write_json(folder / "model.json", seals.sealed(about))
    (folder / "model.safetensors").write_bytes(weights)


def _finished(run, stage, fingerprint):
    value = {"stage": stage, "fingerprint": fingerprint, "settings": {}, "counts": {}, "files": []}
    value["inputs"] = {"shard": "s", "label": "l"}
    for folder in (run / stage / fingerprint, run / stage):
        publish.write_sealed(folder / "manifest.json", value)


def bases(places):
    """Configurations in which keys act: by name, with the stage that they are for and the groups that it reads."""
    corpus = ["corpus=folder", f"corpus.root={places}/photos/JPEGImages", f"dataset.root={places}/photos"]
    cam = ["source=cam", f"source.words={places}/words.vec", "source.classifier=mobilenet_v2"]
    cam += [f"source.classes={places}/classes.txt", "source.classifier_weights=random", "fold=0"]
    whole = ("seed", "corpus", "backbone", "source", "pair", "model", "train", *MEASURED)
    fresh = ["train.tasks=stream", "train.features=fresh", "train.optimizer=mixed", "train.tune=[high.1]"]
    return {
        "folder": ([*corpus, "source.unit=pixels"], "evaluate", whole),
        "list": ([*corpus, f"corpus.list={places}/list.csv"], "shard", ("seed", "corpus")),
        "rendered": (["backbone.weights=pretrain"], "evaluate", ("seed", "corpus", "pretrain")),
        "pascal": ([*corpus, "dataset=pascal5i"], "shard", ("seed",)),
        "quality": (corpus, "quality", ("quality", "pair.min_area", "pair.max_border", "pair.group_shards")),
        "index": (
            [*corpus, "model=corpus_readout"],
            "index",
            ("seed", "backbone", "pair.min_area", "pair.empty_lines"),
        ),
        "refined": ([*corpus, "refine=consensus"], "pair", ("seed", "refine", "pair")),
        "stream": ([*corpus, *fresh, "pair.similarity=sampled"], "train", ("seed", "pair", "train")),
        "views": ([*corpus, "train.views=4", "train.optimizer=sgd"], "train", ("train",)),
        "labelled": ([*corpus, "train.tasks=labelled", "fold=1"], "train", ("seed", "fold", "train", "dataset")),
        "split": ([*corpus, "pair.pairing=mask_split"], "pair", ("seed", "pair")),
        "saliency": ([*corpus, "source=saliency", f"source.maps={places}/maps"], "label", ("source",)),
        "cam": (
            [*corpus, *cam, f"source.maps={places}/maps"],
            "label",
            ("source", "fold", "train.ratio", "train.images"),
        ),
        "names": ([*corpus, *cam, f"source.names={places}/names.csv"], "label", ("source",)),
        "mining": ([*corpus, "source=mining", f"source.model={places}/first"], "label", ("source", "backbone")),
        "unlabelled": (
            [*corpus, "model=mining", "train.unlabelled=2", f"train.unlabelled_run={places}/run-first"],
            "train",
            ("train",),
        ),
        "fitted": (
            [*corpus, "model=cluster_match", "seeds=[0]", "episodes=null"],
            "evaluate",
            ("seed", "backbone", "model", *MEASURED),
        ),
        "by names": (
            [*corpus, *cam, f"source.names={places}/names.csv", "model=prototype", "protocol=hsnet", NAMES],
            "evaluate",
            ("source.words", "source.threshold", "protocol", "model.options"),
        ),
        "exported": ([*corpus, f"model={places}/first"], "evaluate", ("model.path", "dataset")),
        "own set": ([*corpus, "dataset=folder", f"dataset.root={places}/voc"], "evaluate", ("dataset",)),
    }


MEASURED = ("dataset", "protocol", "fold", "shots", "ways", "episodes", "seeds", "baselines", "select")
MEASURED += ("save_predictions", "episode_list")

#: In these bases a key of the groups has no effect, and why.
SILENT = {
    ("folder", "protocol.episodes"): "episodes= stands over it",
    ("by names", "protocol.episodes"): "episodes= stands over it",
    ("fitted", "protocol.seeds"): "seeds= stands over it",
    ("labelled", "dataset.list"): "the tested classes follow from the fold",
    ("names", "source.exclude_named"): "no class of the classifier is called like a name",
    ("list", "corpus.root"): "the listed files are the same there",
    ("stream", "pair.tasks_per_shard"): "nothing is written",
}
NAMES = "protocol.supports=names"


@pytest.fixture(scope="module")
def configured(places):
    """A function (name of a base) -> its configuration."""
    (places / "voc").mkdir()
    for folder, here in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        shutil.copytree(places / "photos" / here, places / "voc" / folder)
    (places / "voc/classes.json").write_text(json.dumps(CLASSES))
    made = {}

    def make(name):
        if name not in made:
            made[name] = load([*SMALL, f"root={places}/runs", *bases(places)[name][0]])
        return made[name]

    return make


def fingerprints(config, stage):
    """Of `stage` and of all that it reads, by name."""
    run = Run(config, STAGES)
    return {name: run.identity(name)[2] for name in run.order(stage)}


def leaves(config, prefix=""):
    """The names of all keys, with dots."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def operational(key):
    return any(key == one or (one.endswith(".") and key.startswith(one)) for one in OPERATIONAL)


def silent(config):
    """The keys that say of themselves that they do nothing here."""
    found = set(contradictions.idle(config))
    for field in dataclasses.fields(config):
        group = getattr(config, field.name)
        if dataclasses.is_dataclass(group):
            found |= {f"{field.name}.{name}" for name in keys.idle(group)}
    return found


def other(key, value, rule, places):
    """Another valid value."""
    chosen = alternatives(places)
    if key in chosen:
        return next(one for one in chosen[key] if one != value)
    if rule is not None and rule.choices():
        return next(one for one in rule.choices() if one not in (value, *(value if isinstance(value, list) else [])))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return next(one for one in (value / 2, 0.5, 2 * value) if one != value and (rule is None or rule.holds(one)))
    raise AssertionError(f"{key}: say in `alternatives` what it may be instead of {value!r}")


def alternatives(places):
    """Values of keys that are no numbers, words of a rule or switches."""
    return {
        "name": ("other",),
        "root": (f"{places}/elsewhere",),
        "out": ("out",),
        "corpus.root": (f"{places}/others/JPEGImages",),
        "corpus.list": (f"{places}/other.csv",),
        "corpus.column": ("url",),
        "corpus.bands": ([3, 2, 1],),
        "corpus.range": ([0.0, 4095.0],),
        "corpus.near_duplicates": (4,),
        "corpus.drivers": ("memory",),
        "backbone.weights": (f"{places}/first/model.safetensors",),
        "backbone.levels": ([6, 9, 12],),
        "backbone.artefacts": (2.5,),
        "source.shards": (1,),
        "source.levels": (["high"], ["mid"]),
        "source.granularities": ([2, 5],),
        "source.hierarchy": ([20],),
        "source.maps": (f"{places}/photos/SegmentationClass", None),
        "source.names": (f"{places}/names.csv", None),
        "source.words": (f"{places}/other.vec",),
        "source.classifier": ("resnet18",),
        "source.classifier_weights": (f"{places}/first/model.safetensors",),
        "source.classes": (f"{places}/reversed.txt",),
        "source.exclude": (["thing1"],),
        "source.model": (f"{places}/second",),
        "quality.masks": (f"{places}/maps",),
        "quality.shards": (1,),
        "pair.layers": ([0],),
        "pair.inside": (0.25,),
        "refine.granularities": ([2, 4],),
        "pretrain.size": (72,),
        "pair.repeats": (3,),
        "model.path": (f"{places}/second",),
        "model.options": ({"dim": 8, "levels": ["mid"]},),  # each head takes what it has
        "train.images": (f"{places}/trained.txt",),
        "train.unlabelled_run": (f"{places}/run-second",),
        "train.mix": ({f"{places}/run-first": 0.5},),
        "train.seed": (9,),
        "train.init_from": (f"{places}/first",),
        "train.tune": (["low"],),
        "train.register": ("heads",),
        "train.alias": ("champion",),
        "dataset.root": (f"{places}/others",),
        "dataset.list": ("ImageSets/train.txt",),
        "dataset.num_folds": (2,),
        "dataset.sbd": ("elsewhere",),
        "cluster.address": ("auto",),
        "cluster.workers": (3,),
        "cluster.features": ("elsewhere",),
        "tracking.uri": ("http://elsewhere",),
        "tracking.experiment": ("other",),
        "plan.corpus_size": (1e6,),
        "plan.workers": (3,),
        "plan.network_gbit": (1.0,),
        "plan.disk_mb_s": (1.0,),
        "protocol.name": ("other",),
        "protocol.episodes": ({"default": 9},),
        "protocol.pairs": (f"{places}/pairs",),
        "protocol.seeds": ([5],),
        "protocol.resolution": (50,),
        "fold": (2,),
        "shots": (3,),
        "episodes": (9,),
        "seeds": ([7],),
        "episode_list": (f"{places}/one.parquet",),
        "baselines": (["nearest"],),
    }


def changed(config, key, places):
    """A copy with `key` set to another value, None if it may have none beside the others.

    Of a key that chooses, what it chooses is another one.
    """
    made = copy.deepcopy(config)
    group, _, name = key.rpartition(".")
    if group in build.CHOICES and name == build.CHOICES[group].key:
        chosen = {
            "source": choices.load("fss.labelling.sources", "saliency").Keys(levels=["high"]),
            "pair": choices.load("fss.tasks.pairing", "mask_split").Keys(shots=2),
            "dataset": choices.load("fss.datasets", "folder").Keys(root=f"{places}/voc"),
        }
        setattr(made, group, chosen[group])
    else:
        _set(made, group, name, places)
    made.corpus.root = made.corpus.root or f"{places}/photos/JPEGImages"  # which one kind of corpus needs
    return None if keys.problems(made) or contradictions.problems(made, thorough=False) else made


def _set(made, group, name, places):
    holder = made
    for part in filter(None, group.split(".")):
        holder = getattr(holder, part)
    field = next(one for one in dataclasses.fields(holder) if one.name == name)
    key = f"{group}.{name}" if group else name
    setattr(holder, name, other(key, getattr(holder, name), field.metadata.get("rule"), places))


@pytest.fixture(scope="module")
def swept(places, configured):
    """By base and key: whether a fingerprint of the base's stage, or of one that it reads, is another."""
    found = {}
    for base, (_, stage, _) in bases(places).items():
        config = configured(base)
        before, quiet = fingerprints(config, stage), silent(config)
        for key in leaves(config):
            made = None if key in quiet else changed(config, key, places)
            if made is None or (stage == "quality" and sources.without_clusters(made, stage)):
                continue
            with contextlib.suppress(ValueError):  # this value asks for other files than the base has
                found[base, key] = fingerprints(made, stage) != before
    return found


def test_a_key_that_acts_changes_a_fingerprint(places, swept):
    """In every base, each key of the groups that its stage reads, unless it is said to act in none or not there."""
    groups = {base: read for base, (_, _, read) in bases(places).items()}
    mine = [
        (base, key)
        for base, key in swept
        if any(key == one or key.startswith(f"{one}.") for one in groups[base]) and not operational(key)
    ]
    assert len(mine) > 300
    assert {one for one in mine if not swept[one]} == {*SILENT}


def test_an_operational_key_changes_none(swept):
    assert [one for one in swept if operational(one[1]) and swept[one]] == []


def test_every_key_is_one_or_the_other(places, configured, swept):
    acting = {key for (_, key), moved in swept.items() if moved}
    known = {key for base in bases(places) for key in leaves(configured(base))}
    assert {key for key in known if not operational(key)} == acting
    assert all(any(key == one or key.startswith(one) for key in known) for one in OPERATIONAL)


def test_the_sweep_meets_every_choice(places, configured):
    """Each source, pairing and data set is a base, or has no keys but those that all of them have."""
    met = {(group, type(getattr(configured(base), group))) for base in bases(places) for group in build.CHOICES}
    for group, choice in build.CHOICES.items():
        for name, kind in choice.classes().items():
            own = {field.name for field in dataclasses.fields(kind)} - {
                f.name for f in dataclasses.fields(kind.__base__)
            }
            assert (group, kind) in met or not own or name in READ_FROM_DISK, (group, name)


#: Data sets whose layouts are not made here; what their keys change is tested in tests/fss/datasets.
READ_FROM_DISK = ("coco20i", "fss1000", "pascal5i")
