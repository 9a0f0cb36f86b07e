"""Keys of the frozen feature extractor."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import Rule, at_least, key, one_of, ranged

PRECISIONS = ("fp32", "bf16")
INTERPOLATIONS = ("bilinear", "bicubic")
PADDINGS = ("zeros", "replicate", "reflect")
#: Weights that are not a file.
NAMED = ("random", "torchvision", "timm", "pretrain")


def _names() -> tuple[str, ...]:
    from fss import backbones

    return backbones.names()


def _known(name: str) -> bool:
    from fss import backbones

    return backbones.known(name)


@dataclass
class BackboneConfig:
    """The frozen feature extractor."""

    name: str = key("resnet50", Rule(_known, lambda: f"one of {', '.join(_names())}", _names))
    """Of `fss.backbones`, or timm/NAME for any of timm's; presets in conf/backbone set its size and stride too."""
    weights: str | None = key(None, path=NAMED)
    """`torchvision` or `timm` (downloaded), `pretrain` (this run's own pre-training stage), a path or fsspec URL, or
    `random`."""
    stride: int | None = key(16, at_least(1))
    """Pixels between the cells of its grid; none = a transformer's patch, or 16."""
    levels: list[int] | None = key(None, at_least(1))
    """Blocks or stages, from 1, after which low, mid and high are taken; none = the network's own, in timm's half,
    three quarters and all of the blocks, or the last three stages."""
    levels_by: str | None = key(None, one_of("consistency"), when={"levels": False})
    """How levels are chosen for you, without labels: by the `consistency` of what cells of photos of the corpus and of
    changed views of them resemble; none = not, see docs/backbones.md."""
    size: int = key(417, at_least(1))
    """Side of the square network input, pixels; see fss.backbones for the sizes at which padding is exact."""
    padding: str = key("zeros", one_of(*PADDINGS))
    """What convolutions see beyond the border: `zeros`, as networks are trained, or the picture continued by `reflect`
    or `replicate`, which keeps segments and predictions from clinging to the border."""
    interpolation: str | None = key(None, one_of(*INTERPOLATIONS))
    """How images are stretched to that side, `bilinear` or `bicubic`, both with antialiasing; none = as timm says of
    its networks, bilinear for the others."""
    artefacts: float | None = key(None, ranged("a number above 1", lambda value: value > 1))
    """From how many times the length of an image's median token on a transformer's tokens are artefacts, which become
    the mean of their neighbours; for networks without registers. none = all tokens stay."""
    debias: float = key(0.0, ranged("a share in [0, 1)", lambda value: 0 <= value < 1))
    """Share of each level's directions that is taken out of features: those in which the cells of a black image differ
    most, which are their position's; INSID3 takes 0.49."""
    precision: str = key("fp32", one_of(*PRECISIONS))
    """bf16 where the processor computes in it (GPUs, AMX, AVX-512 BF16); features are float32 all the same."""

    def problems(self) -> list[str]:
        """What does not go together."""
        if self.weights == "pretrain" and (self.name != "small" or self.size % 32):
            return [
                "weights: expected backbone=small and a backbone.size that is a multiple of 32 with pretrain, got "
                f"{self.name} and {self.size}; give other backbones a weights file"
            ]
        return []

    def chosen_weights(self) -> str:
        """The weights that were asked for.

        Raises:
            ValueError: if none were, as random ones are worth nothing and are not taken in silence.
        """
        if self.weights is None:
            raise ValueError(
                f"backbone.weights: expected where the weights of {self.name} come from, got none; set "
                "backbone.weights=torchvision (ImageNet), =FILE or =URL, with backbone=small =pretrain (on the corpus "
                "itself), or =random if they really shall be random"
            )
        return self.weights
