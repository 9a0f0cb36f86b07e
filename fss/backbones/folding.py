"""A network without its batch norms: each is folded into the convolution before it.

In a network that never changes a batch norm is a scale and a shift of what a convolution gives; the convolution can
give that at once. The values are the same up to float32's rounding, some 1e-6 of a level's largest.
"""

from __future__ import annotations

import collections
import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Net = TypeVar("Net", bound=nn.Module)


def folded(net: Net, images: torch.Tensor) -> Net:
    """A copy of `net`, in evaluation mode, whose batch norms are folded away; `net` itself where none can be.

    What a batch norm follows is seen in a pass over `images`, any that `net` takes. One stays where its input is no
    convolution's, or is wanted by others too, as in blocks whose skip begins before the norm.
    """
    pairs = _pairs(net, images)
    if not pairs:
        return net
    made = copy.deepcopy(net)
    for conv, norm in pairs.items():
        made.set_submodule(conv, fuse_conv_bn_eval(made.get_submodule(conv), made.get_submodule(norm)))  # type: ignore[arg-type, type-var]
        made.set_submodule(norm, nn.Identity())
    return made


class _Uses(TorchDispatchMode):
    """Counts the operations that take one of the tensors that are followed, which live as long as this."""

    def __init__(self) -> None:
        super().__init__()
        self.followed: dict[int, torch.Tensor] = {}
        self.number: collections.Counter[int] = collections.Counter()

    def follow(self, tensor: torch.Tensor) -> int:
        """What the tensor is called here."""
        self.followed[id(tensor)] = tensor
        return id(tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler to keep that out of here: two seconds of every worker's start."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number.update(id(one) for one in tree_leaves((args, kwargs)) if id(one) in self.followed)
        return func(*args, **(kwargs or {}))


def _pairs(net: nn.Module, images: torch.Tensor) -> dict[str, str]:
    """The name of each convolution whose output goes to a batch norm and nowhere else, with the batch norm's."""
    uses, outputs, takers = _Uses(), dict[int, str](), dict[int, str]()

    def gives(name: str) -> Any:
        return lambda _, inputs, output: outputs.update({uses.follow(output): name})

    def takes(name: str) -> Any:
        return lambda _, inputs: takers.update({id(inputs[0]): name} if id(inputs[0]) in outputs else {})

    # What derives from BatchNorm2d does more: timm's has an activation in it.
    hooks = [module.register_forward_pre_hook(takes(name)) for name, module in _all(net, nn.BatchNorm2d)]
    if not hooks:
        return {}
    hooks += [module.register_forward_hook(gives(name)) for name, module in _all(net, nn.Conv2d)]
    with uses:
        net(images)
    for hook in hooks:
        hook.remove()
    return {conv: takers[key] for key, conv in outputs.items() if key in takers and uses.number[key] == 1}


def _all(net: nn.Module, kind: type[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in net.named_modules() if type(module) is kind]
