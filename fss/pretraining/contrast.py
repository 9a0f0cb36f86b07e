"""Label-free pre-training of a small backbone: contrast of object proposals.

MaskContrast (Van Gansbeke et al., "Unsupervised semantic segmentation by contrasting object mask proposals", ICCV
2021): the feature of each pixel of an object is drawn to the mean feature of that object in another view, and pushed
from those of all other objects; beside it a linear layer tells objects from background. Here an image may hold several
objects, as in DetCon (Hénaff et al., ICCV 2021), keys come from the same batch, so there is neither a momentum encoder
nor a queue, and the proposals are those of `fss.pretraining.proposals`.

Negatives and batch normalisation see the whole batch, whatever number of workers share it: see
`fss.pretraining.process_group`.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from fss.backbones.small import SmallNet
from fss.pretraining.process_group import ProcessGroup, share_norms
from fss.pretraining.views import Views


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """The objective."""

    temperature: float = 0.2
    """Of the contrast; cosines are divided by it."""
    width: int = 64
    """Channels in which objects are compared."""
    hidden: int = 256
    """Channels of the projection's hidden layer."""
    levels: tuple[str, ...] = ("mid", "high")
    """Levels of the backbone that are trained, each with a projection of its own."""
    bfloat16: bool = True
    """Run the backbone under bfloat16 autocast; the loss stays in float32."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")


def object_contrast(
    embeddings: torch.Tensor, proposals: torch.Tensor, *, temperature: float, group: ProcessGroup | None = None
) -> torch.Tensor:
    """Cross-entropy of telling each pixel's object among all objects, by their mean embeddings in the other view.

    embeddings (2, B, C, h, w) of unit length, proposals (2, B, h, w) int64 with 0 for background. Objects that one of
    the views does not show take no part. Returns a scalar, the mean over pixels; 0 if no object is left.

    Where a `group` shares a batch, each worker with B images, the objects are those of all of them, and the mean of
    what they return is the loss of the whole batch.
    """
    group = group or ProcessGroup()
    most = int(group.gather(proposals.max()).max())
    member = F.one_hot(proposals, most + 1)[..., 1:].to(embeddings.dtype)
    shown = (group.gather(member.sum((2, 3))) > 0).all(1)  # (workers, B, most)
    if not shown.any():
        return embeddings.sum() * 0
    keys = group.gather(torch.einsum("vbchw,vbhwm->vbmc", embeddings, member))
    keys = F.normalize(keys.transpose(0, 1)[:, shown], dim=-1)
    place = torch.where(shown, shown.flatten().cumsum(0).view_as(shown) - 1, -1)[group.rank]
    place = F.pad(place, (1, 0), value=-1)  # the row of each image's proposals among the keys, background first
    losses = []
    for view in (0, 1):
        target = place.gather(1, proposals[view].flatten(1))
        logits = torch.einsum("bcn,mc->bmn", embeddings[view].flatten(2), keys[1 - view]) / temperature
        losses.append(_mean_cross_entropy(logits, target, group))
    return torch.stack(losses).mean()


def _mean_cross_entropy(logits: torch.Tensor, target: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
    """This worker's part of the mean over all workers' pixels, whose targets are not -1."""
    counts = group.gather((target >= 0).sum())
    share = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum") / counts.sum()
    return share * group.number


class PretrainModel(nn.Module):
    """The backbone that is trained, with the projections and object layers that are thrown away afterwards.

    Where a `group` shares each batch, all of them have to call it, with as many images each.
    """

    def __init__(
        self, backbone: SmallNet, config: ContrastConfig, *, seed: int = 0, group: ProcessGroup | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.config, self.group = backbone, config, group or ProcessGroup()
        channels = {level: backbone.channels[level] for level in config.levels}
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            self.project = nn.ModuleDict({level: _projection(count, config) for level, count in channels.items()})
            self.objectness = nn.ModuleDict({level: nn.Conv2d(count, 1, 1) for level, count in channels.items()})
        generator = torch.Generator().manual_seed(seed)
        for layer in [*self.project.modules(), *self.objectness.modules()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if self.group.number > 1:
            share_norms(self, self.group)

    def forward(self, views: Views) -> dict[str, torch.Tensor]:
        """Scalars: "loss" to minimise, the sum of "contrast" and "objectness", each a mean over the levels."""
        with torch.autocast(views.images.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            features = self.backbone(views.images.flatten(0, 1))
        contrasts, objectness = [], []
        for level in self.config.levels:
            read = features[level].float()
            embeddings = F.normalize(self.project[level](read), dim=1).unflatten(0, (2, -1))
            contrasts.append(
                object_contrast(embeddings, views.proposals, temperature=self.config.temperature, group=self.group)
            )
            logits = self.objectness[level](read)[:, 0]
            target = (views.proposals > 0).flatten(0, 1).to(logits.dtype)
            objectness.append(F.binary_cross_entropy_with_logits(logits, target))
        contrast, binary = torch.stack(contrasts).mean(), torch.stack(objectness).mean()
        return {"loss": contrast + binary, "contrast": contrast.detach(), "objectness": binary.detach()}


def _projection(channels: int, config: ContrastConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, config.hidden, 1, bias=False),
        nn.BatchNorm2d(config.hidden),
        nn.ReLU(),
        nn.Conv2d(config.hidden, config.width, 1),
    )
