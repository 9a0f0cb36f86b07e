"""Which episodes are drawn, lists that are written and read, and the protocols of the field."""

from collections import defaultdict

import pytest
import torch

from fss.scenes.scene import CLASSES
from tests.cluster.evaluate.results import MODEL, OPTIONS, evaluation_images, figures, mask_of, rows, showing


def test_episodes_are_proper(measured, photos):
    folds = {fold: range(5 * fold + 1, 5 * fold + 6) for fold in range(4)}
    for row in rows(measured):
        assert len({row["query"], *row["supports"]}) == row["shots"] + 1
        assert {row["query"], *row["supports"]} <= set(showing(photos, row["class_id"]))
        assert row["class_id"] in folds[row["fold"]]


def test_all_models_see_the_same_episodes_and_seeds_others(measured):
    drawn = defaultdict(list)
    for row in rows(measured):
        key = row["model"], row["seed"]
        drawn[key].append((row["fold"], row["shots"], row["episode"], row["class_id"], row["query"], row["supports"]))
    assert drawn[MODEL, 0] == drawn["smoothed read-out", 0] != drawn[MODEL, 1]
    assert drawn[MODEL, 1] == drawn["smoothed read-out", 1]


def test_classes_with_too_few_images_are_left_out_by_name(measured, photos):
    available = {c: len(showing(photos, c)) for c in range(1, 21)}
    expected = {str(k): [CLASSES[c - 1] for c in range(1, 21) if available[c] < k + 1] for k in (1, 2)}
    assert expected["1"], "the corpus of this test should lack images of a class"
    assert figures(measured)["left_out"] == expected
    for shots, names in expected.items():
        folds = figures(measured)["models"][MODEL][shots]["folds"].values()
        assert not set(names) & {name for fold in folds for name in fold["classes"]}


def test_a_written_list_runs_again(measured, configure, start, root):
    """Whatever the other settings would draw: the same episodes, the same rows, the same figures."""
    listed = measured.path("episode_list.parquet")
    other = ("model=prototype", "baselines=smoothed", "dataset.min_area=5000", "fold=1", "shots=4", "episodes=1")
    again = start(configure(root, *other, f"episode_list={listed}")).ensure("evaluate")
    assert rows(again) == rows(measured)
    assert again.path("episode_list.parquet").read_bytes() == listed.read_bytes()
    for key in ("episodes_sha256", "models"):
        assert figures(again)[key] == figures(measured)[key]
    assert (figures(again)["protocol"]["name"], figures(measured)["protocol"]["name"]) == ("list", "ours")
    assert figures(again)["protocol"]["seeds"] == [0, 1]


def test_a_list_that_does_not_fit_is_refused(measured, configure, start, photos, tmp_path):
    """As soon as it is read, before any unit is mapped; the list's own tests are in test_episode_list."""
    listed = measured.path("episode_list.parquet")
    (tmp_path / "list.parquet").write_bytes(b"query,class\n")
    (tmp_path / "half.txt").write_text("\n".join(evaluation_images(photos)[:3]))
    cases = {
        (
            f"episode_list={tmp_path}/list.parquet",
        ): r"list\.parquet: expected an episode list as evaluate writes it \(Pa",
        (
            f"episode_list={listed}",
            f"dataset.list={tmp_path}/half.txt",
        ): r"the data set has no image 0000\d\d; check da",
        (
            "episode_list=gone.parquet",
        ): r"episode_list: expected a file that evaluate wrote .* there is no gone\.parquet",
    }
    for chosen, told in cases.items():
        run = start(configure(tmp_path, "model=prototype", *chosen))
        with pytest.raises(ValueError, match=told):
            run.ensure("evaluate")
    assert not list(tmp_path.rglob(".units"))


def test_a_lost_list_is_not_mistaken_for_a_drawn_one(measured, configure, start, root):
    """The settings but for the list are those of a finished evaluation."""
    with pytest.raises(ValueError, match="there is no gone"):
        start(configure(root, *OPTIONS, "episode_list=gone")).ensure("evaluate")


# Protocols


def pairs_of(photos):
    """(image, class) of fold 1 in list order, classes with at least 2 images of 100 pixels."""
    classes = [c for c in range(6, 11) if len(showing(photos, c)) >= 2]
    return [(n, c) for n in evaluation_images(photos) for c in classes if (mask_of(photos, n) == c).sum() >= 100]


@pytest.mark.parametrize(
    ("name", "seeds", "resolution", "headline"),
    [
        ("ours", [0], 96, "miou"),
        ("hsnet", [0], 400, "model_resolution.miou"),
        ("pfenet", [321], 96, "miou"),
        ("mining", [0, 1, 2, 3, 4], 96, "miou"),
        ("masksplit", [202, 203, 204, 205, 206], 400, "model_resolution.miou_episode_mean"),
    ],
)
def test_protocols_of_the_field(configure, start, root, photos, name, seeds, resolution, headline):
    options = ("model=prototype", f"protocol={name}", "fold=1", "shots=1", "episodes=20", "dataset.min_area=100")
    manifest = start(configure(root, *options)).ensure("evaluate")
    told, found = figures(manifest), rows(manifest)
    assert {k: told["protocol"][k] for k in ("name", "seeds", "model_resolution", "headline")} == {
        "name": name, "seeds": seeds, "model_resolution": resolution, "headline": headline
    }  # fmt: skip
    value = told["models"][MODEL]["1"]["mean"]
    for key in headline.split("."):
        value = value[key]
    assert 0 < value < 1
    assert len(found) == 20 * len(seeds)
    pairs = pairs_of(photos)
    queries = list(dict.fromkeys(query for query, _ in pairs))
    if name == "hsnet":
        assert [(row["query"], row["class_id"]) for row in found] == [pairs[i % len(pairs)] for i in range(20)]
    elif name == "pfenet":
        assert [row["query"] for row in found] == [queries[i % len(queries)] for i in range(20)]
    else:
        assert {row["query"] for row in found} <= set(queries)
    for row in found:  # the truth at the model's resolution, and what the counts must add up to
        mask = torch.from_numpy(mask_of(photos, row["query"]).copy())[None, None].float()
        mask = torch.nn.functional.interpolate(mask, size=(resolution, resolution), mode="nearest")
        valid = int((mask != 255).sum())
        assert row["model_true"] == int((mask == row["class_id"]).sum())
        assert row["model_predicted"] == row["model_union"] + row["model_intersection"] - row["model_true"]
        assert row["model_background_union"] + row["model_intersection"] == valid
        assert row["model_background_intersection"] + row["model_union"] == valid
