"""What a convolution sees beyond the border of the picture.

Networks are trained with zeros there, and the cells at the border show it: they resemble each other more than their
neighbours, so that segmentation cuts off bands along the border and read-outs spill over. Continuing the picture
(`reflect`) with the same weights removes most of that.
"""

from torch import nn

MODES = ("zeros", "replicate", "reflect")


def pad_with(net: nn.Module, mode: str) -> None:
    """Let every padded convolution of `net` pad in this `mode`, in place; output shapes stay, pooling is left alone.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"expected a padding of {', '.join(MODES)}, got {mode!r}; set backbone.padding")
    if mode == "zeros":
        return
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and any(child.padding):
                setattr(parent, name, _again(child, mode))


def _again(conv: nn.Conv2d, mode: str) -> nn.Conv2d:
    """The same convolution with other padding: a `Conv2d` prepares its padding when it is made."""
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        mode,  # type: ignore[arg-type]
        device="meta",
    )
    made.weight, made.bias = conv.weight, conv.bias
    return made.train(conv.training)
