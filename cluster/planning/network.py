"""What the backbone takes of a machine: operations, parameters, and the memory that it computes in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from fss.backbones.extractor import Extractor
from fss.meanwhile import meanwhile

#: Seconds between two looks at a process's memory.
_LOOK = 0.002


@dataclass(frozen=True)
class NetworkCost:
    """A backbone at its input size."""

    name: str
    size: int
    """Side of its input, pixels."""
    parameters: int
    operations: float
    """Floating-point operations of an image."""
    together: int
    """Images of a call."""
    working: float
    """Bytes of a process's memory while it computes a call, beside those before."""
    gpu: float
    """Bytes of a GPU's memory at most, weights included; 0 on a CPU."""


def looked_at(extractor: Extractor, call: Callable[[], Any]) -> NetworkCost:
    """What is seen while `call` has the extractor compute."""
    backbone, gpu = extractor.backbone, extractor.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(extractor.device)
    working = growth(call)
    return NetworkCost(
        name=backbone.name,
        size=extractor.size,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        operations=operations(extractor),
        together=extractor.call,
        working=working,
        gpu=torch.cuda.max_memory_allocated(extractor.device) if gpu else 0.0,
    )


def operations(extractor: Extractor) -> float:
    """Floating-point operations of an image, a multiplication with its addition as two; nothing is computed."""
    net = extractor.backbone.net
    own = (*net.named_parameters(), *net.named_buffers())  # not its state, which leaves some buffers out
    tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in own}
    images = torch.empty(1, 3, extractor.size, extractor.size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(net, tensors, (images,))
    return float(counter.get_total_flops())


def growth(call: Callable[[], Any]) -> float:
    """By how many bytes this process's memory grows at most while `call` runs, seen by another thread."""
    process = psutil.Process()
    before = most = process.memory_info().rss

    def look(over: threading.Event) -> None:
        nonlocal most
        while not over.wait(_LOOK):
            most = max(most, process.memory_info().rss)

    with meanwhile("memory", look):
        call()
    return float(most - before)
