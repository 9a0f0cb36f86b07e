"""Class activation maps of a frozen image classifier, and heat maps of class names that it was never taught.

Source: A Pixel-Level Meta-Learner for Weakly Supervised Few-Shot Semantic Segmentation (Lee et al., WACV 2022),
section 3.2: a name's heat map is the sum of the maps T_k of the classifier's classes (Eq. 1), each weighted by how near
its name is to the name that is looked for (Eqs. 2 and 3).

Letters: B images, N classes of the classifier, T target names, h x w its last grid.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones.weights import checked, read_state, under_prefix
from fss.texts import read_text

WEIGHTINGS = ("softmax", "inverse_distance", "paper")
SCALES = ("each", "image")
#: The smallest distance, and by Eq. 2 as printed similarity, that is divided by.
_LEAST = 0.01


class Classifier(nn.Module):
    """A torchvision classifier cut where its last convolutional features are: `body`, then `head` to its N logits.

    Args:
        name: of torchvision's model, with `features` and `classifier` (VGG, MobileNet, EfficientNet, ..) or with
            `layer4` and `fc` (ResNet).
        net: that model.
    """

    def __init__(self, name: str, net: nn.Module):
        super().__init__()
        children = dict(net.named_children())
        if "layer4" in children and "fc" in children:
            parts = list(children.values())
            last = list(children).index("layer4") + 1
            self.body: nn.Module = nn.Sequential(*parts[:last])
            self.tail = children["fc"]
        elif "features" in children and "classifier" in children:
            self.body, self.tail = children["features"], children["classifier"]
        else:
            raise ValueError(
                "expected a classifier with features and classifier, or with layer4 and fc (vgg16, resnet50, "
                f"mobilenet_v2, ..), got {name}; set source.classifier"
            )
        self.pool = children.get("avgpool", nn.AdaptiveAvgPool2d(1))
        self.corners = not name.startswith("vgg")
        """The geometry of its grid, see `fss.grid`; as the backbones of that name."""
        self.eval().requires_grad_(False)

    @property
    def linear(self) -> nn.Linear | None:
        """What follows global average pooling, if that is all that follows."""
        layers = [layer for layer in self.tail.modules() if not isinstance(layer, (nn.Sequential, nn.Dropout))]
        pooled = getattr(self.pool, "output_size", 0) in (1, (1, 1))
        return layers[0] if pooled and len(layers) == 1 and isinstance(layers[0], nn.Linear) else None

    @property
    def classes(self) -> int:
        """N."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Linear)][-1].out_features

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, N) of (B, C, h, w) last convolutional features."""
        return self.tail(self.pool(features).flatten(1))

    def maps(self, images: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Evidence for `classes` at each cell of (B, 3, S, S) normalised images: (B, len(classes), h, w) float32.

        Where global average pooling and a linear layer follow the features, these are class activation maps (Zhou et
        al. 2016): the layer applied to every cell. Otherwise, as for VGG's three layers on pooled features, Grad-CAM
        (Selvaraju et al. 2017): channels weighted by the sum of the gradient of the class's logit, with which it is the
        same map where both exist. The paper takes a VGG-16 and does not say which; the usual VGG for such maps
        has its layers replaced and is trained anew.
        """
        with torch.no_grad():
            features = self.body(images).float()
        if self.linear is not None:
            with torch.no_grad():
                return F.conv2d(features, self.linear.weight.float()[list(classes), :, None, None])
        return _grad_cam(features, self.logits, classes)


def _grad_cam(
    features: torch.Tensor, logits: Callable[[torch.Tensor], torch.Tensor], classes: Sequence[int]
) -> torch.Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.clone().requires_grad_()
        scores = logits(leaf)
        each = [torch.autograd.grad(scores[:, c].sum(), leaf, retain_graph=True)[0].sum(dim=(2, 3)) for c in classes]
    return torch.einsum("kbc,bcyx->bkyx", torch.stack(each), features)


@functools.lru_cache(maxsize=2)
def load(name: str, weights: str) -> Classifier:
    """Classifier `name` of torchvision with its weights, in evaluation mode; kept for the next call in this process.

    Args:
        name: vgg16, resnet50, mobilenet_v2, ..
        weights: path or fsspec address of its state dict, all layers, `torchvision`, or `random` (seed 0).

    Raises:
        ValueError: for unknown names, unreadable weights and weights of another network or of its features alone.
    """
    import torchvision

    if name not in torchvision.models.list_models(torchvision.models):
        raise ValueError(f"expected a classifier of torchvision, got {name!r}; set source.classifier=mobilenet_v2")
    state = {} if weights == "random" else read_state(name, weights)
    flat = [value for key, value in state.items() if key.endswith("weight") and value.ndim == 2]
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(0)
        net = torchvision.models.get_model(name, weights=None, num_classes=len(flat[-1]) if flat else 1000)
    if weights == "random":
        return Classifier(name, net)
    own = under_prefix(net.state_dict(), state, weights)
    missing = [key for key in net.state_dict() if key not in own and not key.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(
            f"{weights}: expected the whole {name}, its classifier included, but {len(missing)} keys are missing, "
            f"first {missing[0]}; set source.classifier to the network of source.classifier_weights"
        )
    net.load_state_dict(checked(name, net.state_dict(), own, weights), strict=False)
    return Classifier(name, net)


def categories(name: str, file: str | Path | None = None) -> tuple[str, ...]:
    """Names of a classifier's classes in its order: one a line of `file`, or those of torchvision's ImageNet weights.

    Raises:
        ValueError: if the file cannot be read, or torchvision knows no classifier `name`.
    """
    if file is not None:
        try:
            lines = read_text(Path(file)).splitlines()
        except OSError as error:
            raise ValueError(f"cannot read source.classes={file} ({type(error).__name__}: {error})") from error
        return tuple(line.strip() for line in lines if line.strip())
    import torchvision

    try:
        return tuple(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])
    except ValueError as error:
        raise ValueError(f"expected a classifier of torchvision, got {name!r}; set source.classifier") from error


def weigh(similarity: np.ndarray, weighting: str, temperature: float = 0.1) -> np.ndarray:
    """Weights of the classifier's classes for each name: (T, N) float32, no less than 0, rows sum to 1.

    * `softmax` of the cosines over `temperature`: alike classes count, unlike ones do not;
    * `inverse_distance`: 1 / (1 - cosine), what Eq. 2 means by a distance;
    * `paper`: 1 / cosine, Eq. 2 as printed with the similarity it names, which prefers what is unlike; cosines below
      0.01 count as 0.01.

    Args:
        similarity: (T, N) cosines; minus infinity takes a class out.
        weighting: one of WEIGHTINGS.
        temperature: above 0.

    Raises:
        ValueError: for another weighting, or if no class is left.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"expected source.weighting of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    known = np.isfinite(similarity)
    if not known.any(axis=1).all():
        raise ValueError("expected some class of the classifier to be left, got all excluded; shorten source.exclude")
    cosine = np.where(known, similarity, 0).astype(np.float64)
    if weighting == "softmax":
        top = np.where(known, cosine, -np.inf).max(axis=1, keepdims=True)
        raw = np.exp((cosine - top) / temperature)
    else:
        raw = 1 / np.maximum(cosine if weighting == "paper" else 1 - cosine, _LEAST)
    raw *= known
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def heat(maps: torch.Tensor, weights: torch.Tensor, scale: str = "image") -> torch.Tensor:
    """Eq. 3: the names' heat maps, the weighted sums of T_k in [0, 1]: (B, T, h, w) float32 in [0, 1].

    T_k is the evidence for class k, no less than 0, divided by the largest of all these classes in the image (`image`),
    so that classes of which it shows nothing add little, or by its own maximum (`each`). The paper says only that it is
    in [0, 1].

    Args:
        maps: (B, K, h, w) of `Classifier.maps`.
        weights: (T, K), rows sum to at most 1.
        scale: one of SCALES.

    Raises:
        ValueError: for another scale.
    """
    if scale not in SCALES:
        raise ValueError(f"expected source.scale of {', '.join(SCALES)}, got {scale!r}")
    shown = maps.clamp_min(0)
    most = shown.amax(dim=(2, 3) if scale == "each" else (1, 2, 3), keepdim=True)
    return torch.einsum("tk,bkyx->btyx", weights, shown / most.clamp_min(1e-12))


def excluded(classes: Sequence[str], names: Sequence[str]) -> list[int]:
    """Classes of the classifier that are left out since they are, by name, one of `names`.

    A class goes if one of its synonyms is a name or ends in one (the dogs that are called "Eskimo dog", not the
    pug: a name does not tell that), spelling aside.
    """
    from fss.labelling import words

    gone = {words.key(synonym) for name in names for synonym in words.synonyms(name)}

    def named(label: str) -> bool:
        for synonym in words.synonyms(label):
            parts = words.words(synonym)
            if any(words.key("_".join(parts[start:])) in gone for start in range(len(parts))):
                return True
        return False

    return [index for index, label in enumerate(classes) if named(label)]
