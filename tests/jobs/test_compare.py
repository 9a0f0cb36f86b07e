"""The compare command on evaluations written by hand: figures, refusals, files, and what goes to MLflow."""

import itertools
import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.compare import report
from cluster.compare.compare import CompareConfig, Evaluation, find
from cluster.compare.compare import compare as compute
from cluster.evaluate.results import percent
from cluster.tracking.journal import read_events
from jobs import compare as job
from jobs._config import load_keys
from tests.cluster.evaluate.test_results import check_latex

NAMES = {"1": "cat", "2": "dog_&", "3": "50 %", "4": "bus"}
PROTOCOL = {"seeds": [0], "min_area": 2048}


def rows(model, quality, *, shots=(1,), seeds=(0,), episodes=40):
    """`quality[class]` pixels of 100 are found, plus noise that depends on the episode alone; folds of two classes."""
    rest = {"ways": 1, "way": 0, "query": "q", "supports": ["s"], "predicted": 50, "true": 50}
    found = []
    for fold, number, seed in itertools.product((0, 1), shots, seeds):
        noise = np.random.default_rng([fold, number, seed]).integers(-9, 10, episodes) + 5 * (number - 1)
        for episode in range(episodes):
            class_id = 2 * fold + 1 + episode % 2
            names = {"model": model, "fold": fold, "shots": number, "seed": seed, "episode": episode}
            counts = {"intersection": quality[class_id] + int(noise[episode]), "union": 100}
            back = {"background_intersection": 80, "background_union": 100}
            found.append({**names, "class_id": class_id, **counts, **back, **rest})
    return found


def write(folder, *tables, sha="a" * 64, **about):
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row for table in tables for row in table]), folder / "episodes.parquet")
    figures = {"dataset": {"name": "pascal5i", "images": 9}, "protocol": PROTOCOL, "class_names": NAMES, "models": {}}
    (folder / "metrics.json").write_text(json.dumps(figures | {"episodes_sha256": sha} | about))
    return folder


FLOOR = {1: 30, 2: 30, 3: 30, 4: 30}
GOOD = {1: 40, 2: 20, 3: 50, 4: 30}
TRAINED = "umtfss, meta-trained"


@pytest.fixture
def runs(tmp_path):
    """Two runs' folders with equal floors; B is better than A by 10, -10, 20 and 0 points in classes 1 to 4."""
    root = tmp_path / "runs"
    for name, quality in (("A", FLOOR), ("B", GOOD)):
        floor = rows("read-out", {c: 25 for c in FLOOR}, shots=(1, 5))
        write(root / name / "evaluate" / "0123", floor, rows(TRAINED, quality, shots=(1, 5)))
    return root


def load(runs, *arguments):
    return load_keys(CompareConfig, [f"runs=[{','.join(str(run) for run in runs)}]", "samples=200", *arguments])


def test_figures_by_hand(runs):
    found = compute(load([runs / "A", runs / "B"]))
    a, b = f"{TRAINED} (A)", f"{TRAINED} (B)"
    assert [model.label for model in found.models] == ["read-out", a, b]
    assert (found.base, found.others) == (a, ["read-out", b])
    assert found.groups == [(1, 1), (1, 5)]
    assert found.class_names == {int(c): name for c, name in NAMES.items()}
    for group in found.groups:
        # the noise is that of the episode, so paired differences have none; each class has half a fold's episodes
        for c, gap in {1: 0.10, 2: -0.10, 3: 0.20, 4: 0.0}.items():
            told = found.gaps[b, group, c]
            assert (told.value, told.low, told.high) == pytest.approx((gap, gap, gap))
        miou = found.gaps[b, group, "miou"]
        assert (miou.value, miou.low, miou.high) == pytest.approx((0.05, 0.05, 0.05))
        assert miou.clear
        assert miou.below == 0
        # foreground: sums over a fold, 20 episodes each of +10 and -10, then of +20 and 0: mean gain 5, half in FB-IoU
        assert found.gaps[b, group, "fb_iou"].value == pytest.approx(0.025)
        assert found.gaps["read-out", group, "miou"].value == pytest.approx(-0.05)
        assert found.gaps["read-out", group, "miou"].below == 1
    five, one = (found.figures[b, (1, shots), "miou"] for shots in (5, 1))
    exact = np.mean([row["intersection"] / 100 for row in rows("", GOOD, shots=(1,))])
    assert one.value == pytest.approx(exact)
    assert one.low < one.value < one.high
    assert five.value - one.value == pytest.approx(0.2, abs=0.03)


def test_seeds_give_a_spread_and_each_seed_counts_alike(tmp_path):
    tables = [rows("a", FLOOR, seeds=(0, 1, 2)), rows("b", GOOD, seeds=(0, 1, 2))]
    found = compute(load([write(tmp_path / "out", *tables)]))
    result = next(r for r in found.results if (r.model, r.metric) == ("a", "mIoU"))
    means = [np.mean([r["intersection"] / 100 for r in tables[0] if r["seed"] == s]) for s in range(3)]
    assert result.mean == pytest.approx(np.mean(means))
    assert result.spread == pytest.approx(np.std(means, ddof=1))
    assert result.interval == (found.figures["a", (1, 1), "miou"].low, found.figures["a", (1, 1), "miou"].high)
    assert found.base == "b", "the run's own model; its floor comes along"


def test_models_are_chosen_by_name(runs):
    found = compute(load([f'"{runs}/A:read-out"', f'"{runs}/B:{TRAINED}"'], "base=read-out"))
    assert [model.label for model in found.models] == ["read-out", TRAINED]
    assert found.gaps[TRAINED, (1, 1), "miou"].value == pytest.approx(0.10)
    assert compute(load([runs / "A", runs / "B"], f"base={runs}/B")).base == f"{TRAINED} (B)"
    with pytest.raises(ValueError, match=r"expected a model of .*, got 'umtfss'; a name with a comma needs quotes: "):
        compute(load([f"{runs}/A:umtfss"]))
    with pytest.raises(ValueError, match=r"base: expected one of 'read-out', .* or a run as in runs=, got 'C'"):
        compute(load([runs / "A", runs / "B"], "base=C"))
    with pytest.raises(ValueError, match=r"expected each model once, got .* twice"):
        compute(load([runs / "A", runs / "A"]))
    with pytest.raises(ValueError, match=r"expected at least two models to compare, got \['read-out'\]; add to runs="):
        compute(load([f"{runs}/A:read-out"]))


def test_floors_of_other_backbones_stay(runs):
    write(runs / "C" / "evaluate" / "1", rows("read-out", FLOOR, shots=(1, 5)), rows("own", GOOD, shots=(1, 5)))
    found = compute(load([runs / "A", runs / "B", runs / "C"]))
    labels = [model.label for model in found.models]
    assert labels == ["read-out (A)", "read-out (C)", f"{TRAINED} (A)", f"{TRAINED} (B)", "own"]


def test_evaluations_of_one_run_are_told_apart_by_their_folders(runs):
    of_one_run = [write(runs / "A" / "evaluate" / name, rows(TRAINED, GOOD)) for name in ("seed0", "seed1")]
    found = compute(load(of_one_run))
    assert [model.label for model in found.models] == [f"{TRAINED} (seed0)", f"{TRAINED} (seed1)"]
    other = write(runs / "D" / "evaluate" / "seed1", rows(TRAINED, GOOD))
    labels = [model.label for model in compute(load([*of_one_run, other])).models]
    assert labels == [f"{TRAINED} (seed0)", f"{TRAINED} ({of_one_run[1]})", f"{TRAINED} (D)"]


def test_other_episodes_are_refused(runs):
    other = {"dataset": {"name": "pascal5i", "images": 12}, "protocol": PROTOCOL | {"seeds": [7]}}
    write(runs / "C", rows("own", GOOD, shots=(1, 5), episodes=60), sha="b" * 64, **other)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        compute(load([runs / "A", runs / "B", runs / "C"]))
    told = str(error.value)
    assert f"{runs}/A has the list aaaaaaaaaaaa, {runs}/C has bbbbbbbbbbbb (" in told
    assert f"{runs}/B" not in told
    for part in (
        "dataset.images: 9 and 12",
        "protocol.seeds: [0] and [7]",
        "episodes of fold 0, 1-way 1-shot: 40 and 60",
        "evaluate all with the same dataset.*",
    ):
        assert part in told
    assert "min_area" not in told
    write(runs / "D", rows("own", GOOD, shots=(1, 5)), sha="c" * 64)
    with pytest.raises(ValueError, match="their settings agree, so the labelled images do not"):
        compute(load([runs / "A", runs / "D"]))
    write(runs / "E", rows("own", GOOD, shots=(1,)))
    with pytest.raises(ValueError, match="1-way 5-shot: 40 and none"):
        compute(load([runs / "A", runs / "E"]))


def test_a_table_that_belies_its_hash_is_refused(runs):
    changed = rows("own", GOOD, shots=(1, 5))
    changed[3]["class_id"] = 1
    write(runs / "C", changed)
    with pytest.raises(ValueError, match="expected two models on the same episodes"):
        compute(load([runs / "A", runs / "C"]))


def test_evaluations_are_found_or_explained(runs):
    old = runs / "A" / "evaluate" / "0123"
    assert find(old) == find(runs / "A") == old.resolve()
    new = write(runs / "A" / "evaluate" / "00", rows("x", GOOD))
    os.utime(new / "metrics.json", (2e9, 2e9))
    (runs / "A" / "evaluate" / "zz").mkdir()
    assert find(runs / "A") == new.resolve()
    with pytest.raises(ValueError, match=r"expected an evaluation .* found none; jobs.evaluate writes one"):
        compute(load([runs / "absent"]))
    with pytest.raises(ValueError, match="an evaluation of an older version lacks episodes_sha256; evaluate that"):
        Evaluation.read(write(runs / "old", rows("x", GOOD), sha=""))
    pq.write_table(pq.read_table(new / "episodes.parquet").drop_columns(["seed", "ways"]), new / "episodes.parquet")
    with pytest.raises(ValueError, match="older version lacks the columns seed, ways"):
        Evaluation.read(new)
    with pytest.raises(ValueError, match="there is no key 'sampels'; did you mean samples"):
        load([runs / "A"], "sampels=3")
    with pytest.raises(ValueError, match="expected a value for runs"):
        load_keys(CompareConfig, ["samples=300"])


def test_tables_mark_what_is_clear(runs):
    found = compute(load([runs / "A", runs / "B"]))
    text, page, tex = report.plain(found), report.markdown(found), report.tex(found)
    b = f"{TRAINED} (B)"
    assert f"| {b} | 1-shot mIoU | +5.0 [+5.0, +5.0] * | 0.0 |" in page
    (bus,) = [line for line in page.splitlines() if line.startswith("| bus | 3") or line.startswith("| bus | 2")]
    assert bus.endswith("| +0.0 [+0.0, +0.0] |"), "no mark at zero"
    cat = next(line for line in text.splitlines() if line.startswith("cat"))
    assert cat.split()[-4:] == ["+10.0", "[+10.0,", "+10.0]", "*"]
    mean = found.figures[b, (1, 1), "miou"]
    assert percent(mean.value, None, (mean.low, mean.high)) in text
    assert r"dog\_\&" in tex
    assert r"50 \%" in tex
    assert tex.count(r"\begin{tabular}") == 2 + 1 + 2
    check_latex(re.sub(r"^%.*$", "", tex, flags=re.MULTILINE))


def test_files_picture_and_journal(runs, tmp_path, monkeypatch, capsys):
    shipped = []

    class Shipper:
        def __init__(self, folder, uri, experiment):
            shipped.append((folder, uri, experiment))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(report, "Shipper", Shipper)
    out = tmp_path / "out"
    job.compare(load([runs / "A", runs / "B"], f"out={out}"))
    assert capsys.readouterr().out.endswith(f"compare: {out}\n")
    assert shipped == [(out / "tracking", f"sqlite:///{runs}/mlflow.db", "few-shot segmentation")]
    assert sorted(p.name for p in out.iterdir()) == [
        "compare.json", "compare.md", "compare.png", "compare.tex", "tracking",
    ]  # fmt: skip

    told = json.loads((out / "compare.json").read_text())
    assert (told["base"], told["samples"], told["episodes_sha256"]) == (f"{TRAINED} (A)", 200, "a" * 64)
    assert len(told["differences"]) == 2 * 2 * (2 + 4)
    (dog,) = [
        d for d in told["differences"] if (d.get("class"), d["shots"], d["model"]) == ("dog_&", 5, f"{TRAINED} (B)")
    ]
    assert dog["value"] == pytest.approx(-0.1)
    assert (dog["excludes_zero"], dog["below"], dog["ways"]) == (True, 1, 1)

    with Image.open(out / "compare.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(10**6)}
        assert min(image.size) > 200
    assert {(0, 114, 178), (213, 94, 0)} <= colours, "bars of both models"

    (journal,) = (out / "tracking").glob("*.jsonl")
    events, _ = read_events(journal)
    assert events[-1]["status"] == "FINISHED"
    metrics = {key: value for event in events if event["kind"] == "metrics" for key, value in event["values"].items()}
    assert metrics[f"compare/miou_difference_1-shot/{TRAINED} (B)"] == pytest.approx(0.05)
    assert metrics[f"compare/miou_difference_1-shot_high/{TRAINED} (B)"] == pytest.approx(0.05)
    artifacts = [event["path"] for event in events if event["kind"] == "artifact"]
    assert [path.rpartition(".")[2] for path in artifacts] == ["json", "md", "png", "tex"]

    job.compare(load([runs / "A", runs / "B"], "tracking.enabled=false"))
    (made,) = (runs / "compare").iterdir()
    assert (made / "compare.tex").read_text() == (out / "compare.tex").read_text()
    assert len(shipped) == 1
