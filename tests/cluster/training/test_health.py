"""What goes wrong silently is said once, with the remedy: each sign from scripted figures."""

import pytest

from cluster.training.health import Health, check_finite

WELL = {"loss": 0.5, "iou": 0.6, "area_ratio": 0.9, "predicted_share": 0.2, "empty_share": 0.0, "dead_prototypes": 0.1}


@pytest.fixture
def health(tmp_path):
    return Health(tmp_path, steps=90)


def test_a_healthy_training_is_left_in_peace(health, tmp_path):
    assert health.check(0, {"holdout_iou": 0.3}) == {}
    for step in range(10, 91, 10):
        assert health.check(step, WELL | {"loss": 1 / step, "holdout_iou": 0.3 + step / 200}) == {}


@pytest.mark.parametrize(
    ("name", "figures", "remedy"),
    [
        ("all_background", {"area_ratio": 0.04}, "train.loss=dice"),
        ("all_background", {"holdout_area_ratio": 0.0}, "train.loss=dice"),
        ("all_foreground", {"predicted_share": 0.96, "area_ratio": 4.0}, "train.loss=cross_entropy_dice"),
        ("empty_masks", {"empty_share": 0.3}, "pair.min_area"),
        ("dead_prototypes", {"holdout_dead_prototypes": 0.6}, "model.options.foreground_prototypes"),
    ],
)
def test_a_sign_is_said_once(health, name, figures, remedy):
    (found,) = health.check(20, WELL | figures).items()
    assert found[0] == name
    assert found[1].startswith("at step 20 ")
    assert remedy in found[1]
    assert health.check(30, WELL | figures | {"loss": 0.4}) == {}


def test_one_sided_predictions_of_a_fresh_head_do_not_count(health):
    assert health.check(8, WELL | {"area_ratio": 0.0}) == {}
    assert "all_background" in health.check(9, WELL | {"area_ratio": 0.0})


def test_everything_being_foreground_is_no_sign(health):
    assert health.check(20, WELL | {"predicted_share": 0.99, "area_ratio": 1.0}) == {}


@pytest.mark.parametrize(
    ("step", "now", "said"), [(20, 0.2, False), (30, 0.3, True), (30, 0.31, False), (80, 0.1, True)]
)
def test_a_holdout_no_better_than_before_the_first_step_is_said_after_a_third(health, step, now, said):
    health.check(0, {"holdout_iou": 0.3})
    found = health.check(step, WELL | {"holdout_iou": now})
    assert list(found) == (["unlearned"] if said else [])
    if said:
        assert f"is {100 * now:.1f} %, 30.0 % before the first step" in found["unlearned"]


def test_without_a_holdout_the_loss_is_compared(health):
    health.check(10, {"loss": 0.8})
    assert health.check(20, {"loss": 0.9}) == {}
    found = health.check(30, {"loss": 0.79})
    assert "the loss is 0.79, 0.8 at the first log line" in found["unlearned"]
    assert "train.lr" in found["unlearned"]


def test_the_first_log_line_is_not_compared_with_itself(tmp_path):
    health = Health(tmp_path, steps=6, name="pretrain")
    assert health.check(2, {"loss": 3.3}) == {}
    assert health.check(4, {"loss": 3.3})["unlearned"].endswith("raise or lower pretrain.lr, or raise pretrain.steps")


def test_a_log_line_without_validation_does_not_judge_the_holdout(health):
    health.check(0, {"holdout_iou": 0.3})
    assert health.check(40, WELL) == {}


def test_a_resumed_run_remembers_its_start_and_what_it_said(health, tmp_path):
    health.check(0, {"holdout_iou": 0.3})
    health.check(20, WELL | {"area_ratio": 0.0})
    again = Health(tmp_path, steps=90)
    assert again.check(40, WELL | {"area_ratio": 0.0}) == {}
    assert list(again.check(50, WELL | {"holdout_iou": 0.2})) == ["unlearned"]
    (tmp_path / "health.json").write_text("{torn")
    assert Health(tmp_path, steps=90).start == {}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(loss):
    check_finite("train", 3, 1e9)
    with pytest.raises(RuntimeError, match=rf"the loss is {loss} at step 3; lower train.lr, or .*train.precision=fp32"):
        check_finite("train", 3, loss)
