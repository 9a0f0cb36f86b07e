"""Class activation maps by hand on tiny classifiers, weights from similarities, what is left out by name."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from fss.labelling import heatmaps


@pytest.fixture(autouse=True)
def _new_weights_may_draw() -> Iterator[None]:
    """torch draws them from the process's generator; it is put back."""
    with torch.random.fork_rng(devices=[]):
        yield


class Tiny(nn.Module):
    """A classifier of one channel an input channel; with `layers` of two, Grad-CAM is needed."""

    def __init__(self, layers: int = 1, side: int = 1):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        width = 3 * side * side
        hidden = [nn.Linear(width, 5), nn.ReLU(), nn.Dropout(0.5)] if layers > 1 else []
        self.classifier = nn.Sequential(*hidden, nn.Linear(5 if hidden else width, 4))


def tiny(**options: int) -> heatmaps.Classifier:
    torch.manual_seed(3)
    return heatmaps.Classifier("tiny", Tiny(**options))


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def test_a_linear_classifiers_maps_by_hand():
    """Of one image of 1 x 2 cells with two channels: class 0 weighs them 1 and -1, class 1 2 and 0."""
    net = Tiny()
    net.features = nn.Sequential(nn.Identity())
    net.classifier = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    with torch.no_grad():
        net.classifier[1].weight.copy_(torch.tensor([[1.0, -1], [2, 0]]))
    image = torch.tensor([[[[3.0, 5]], [[1, 7]]]])
    found = heatmaps.Classifier("tiny", net).maps(image, [1, 0])
    assert torch.equal(found, torch.tensor([[[[6.0, 10]], [[2, -2]]]]))


def test_the_maps_mean_is_the_logit_without_the_bias():
    net = tiny()
    found = net.maps(images(), range(4)).mean(dim=(2, 3)) + net.linear.bias
    assert torch.allclose(found, net.logits(net.body(images())), atol=1e-5)
    assert net.classes == 4


def test_grad_cam_of_a_linear_classifier_is_its_class_activation_map():
    net = tiny()
    features = net.body(images())
    assert torch.allclose(heatmaps._grad_cam(features, net.logits, [2, 1]), net.maps(images(), [2, 1]), atol=1e-5)


@pytest.mark.parametrize("side", [1, 2])
def test_grad_cam_equals_differences(side):
    """Channels weighted by the summed change of the logit, cell by cell; under inference mode as in a stage."""
    net = tiny(layers=2, side=side)
    assert net.linear is None
    with torch.inference_mode():
        found = net.maps(images(), [3])[:, 0]
    features = net.body(images()).double()
    double = net.double()
    for b in range(2):
        slopes = torch.zeros(3)
        for c in range(3):
            for y in range(4):
                for x in range(5):
                    moved = features.clone()
                    moved[b, c, y, x] += 1e-6
                    slopes[c] += (double.logits(moved) - double.logits(features))[b, 3] / 1e-6
        expected = (slopes[:, None, None] * features[b]).sum(dim=0).float()
        assert torch.allclose(found[b], expected, atol=1e-3)


def test_weights_by_hand():
    cosines = np.array([[0.9, 0.5, -0.2, -np.inf]])
    raised = np.exp(np.array([0.9, 0.5, -0.2]) / 0.1)
    expected = {
        "softmax": raised,
        "inverse_distance": 1 / (1 - np.array([0.9, 0.5, -0.2])),
        "paper": 1 / np.array([0.9, 0.5, 0.01]),
    }
    for weighting, raw in expected.items():
        found = heatmaps.weigh(cosines, weighting, 0.1)
        assert found.dtype == np.float32
        assert np.allclose(found, [[*(raw / raw.sum()), 0]], atol=1e-6)


def test_heat_by_hand():
    """Maps 0..2 and 0..4: alone each reaches 1; by the largest of the image the first reaches a half."""
    maps = torch.tensor([[[[-5.0, 2, 1]], [[4, 0, -1]]]])
    weights = torch.tensor([[0.5, 0.5], [1, 0]])
    assert torch.allclose(heatmaps.heat(maps, weights, "each")[0, :, 0], torch.tensor([[0.5, 0.5, 0.25], [0, 1, 0.5]]))
    assert torch.allclose(heatmaps.heat(maps, weights)[0, :, 0], torch.tensor([[0.5, 0.25, 0.125], [0, 0.5, 0.25]]))
    assert heatmaps.heat(-maps.abs(), weights).abs().max() == 0


def test_classes_are_left_out_by_name():
    """As a whole, as a synonym, as the last words; not as a part of a word, nor by kinship."""
    classes = ["n02109961_Eskimo_dog", "hot dog, hotdog", "dogsled", "pug", "settee, sofa", "Potted-Plant", "dog show"]
    assert heatmaps.excluded(classes, ["dog", "couch, Sofa", "pottedplant"]) == [0, 1, 4, 5]
    assert heatmaps.excluded(classes, []) == []


def test_names_of_a_classifiers_classes(tmp_path):
    assert heatmaps.categories("mobilenet_v2")[:2] == ("tench", "goldfish")
    (tmp_path / "two.txt").write_text("tench, Tinca tinca\n\n goldfish \n")
    assert heatmaps.categories("any", tmp_path / "two.txt") == ("tench, Tinca tinca", "goldfish")
    with pytest.raises(ValueError, match=r"cannot read source\.classes=nowhere"):
        heatmaps.categories("any", "nowhere")
    with pytest.raises(ValueError, match="expected a classifier of torchvision, got 'vgg17'"):
        heatmaps.categories("vgg17")


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"expected source\.weighting of softmax, .*got 'max'"):
        heatmaps.weigh(np.zeros((1, 2)), "max")
    with pytest.raises(ValueError, match="got all excluded; shorten"):
        heatmaps.weigh(np.full((1, 2), -np.inf), "softmax")
    with pytest.raises(ValueError, match=r"expected source\.scale of each, image, got 'all'"):
        heatmaps.heat(torch.zeros(1, 2, 1, 1), torch.ones(1, 2), "all")
    with pytest.raises(ValueError, match=r"with features and classifier, or with layer4 and fc .*got odd"):
        heatmaps.Classifier("odd", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="expected a classifier of torchvision, got 'vgg17'"):
        heatmaps.load("vgg17", "random")


@pytest.mark.parametrize(("name", "exact"), [("mobilenet_v2", True), ("resnet18", True), ("mobilenet_v3_small", False)])
def test_torchvisions_classifiers_give_maps(name, exact):
    net = heatmaps.load(name, "random")
    assert (net.linear is not None) == exact
    assert net.classes == 1000
    found = net.maps(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), [5, 7])
    assert found.shape == (1, 2, 2, 2)
    assert found.isfinite().all()


def test_weights_files_bring_their_number_of_classes(tmp_path):
    import torchvision

    net = torchvision.models.resnet18(weights=None, num_classes=7)
    torch.save(net.state_dict(), tmp_path / "seven.pth")
    assert heatmaps.load("resnet18", str(tmp_path / "seven.pth")).classes == 7
    bare = {key: value for key, value in net.state_dict().items() if not key.startswith("fc")}
    torch.save(bare, tmp_path / "bare.pth")
    with pytest.raises(
        ValueError, match=r"expected the whole resnet18, its classifier included, but 2 keys .*fc\.weight"
    ):
        heatmaps.load("resnet18", str(tmp_path / "bare.pth"))


def test_weights_files_are_unwrapped_and_checked_as_those_of_backbones(tmp_path):
    import torchvision

    state = torchvision.models.resnet18(weights=None, num_classes=7).state_dict()
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth")
    found = heatmaps.load("resnet18", str(tmp_path / "wrapped.pth"))
    assert torch.equal(found.tail.weight, state["fc.weight"])
    for name, tensor, said in (
        ("wild", state["fc.bias"] * float("nan"), "not finite as float32: fc.bias"),
        ("other", torch.zeros(3), r"another shape than in resnet18: fc.bias \(expected \(7,\), got \(3,\)\)"),
    ):
        torch.save(state | {"fc.bias": tensor}, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=said):
            heatmaps.load("resnet18", str(tmp_path / f"{name}.pth"))
