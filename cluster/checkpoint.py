"""Training state that does not depend on the number of workers or the ZeRO stage, in files that execute nothing.

    checkpoints/step-00000200/state.safetensors    parameters, buffers, optimiser moments, averaged weights; float32
    checkpoints/step-00000200/meta.json            step, identity of the run, sha256; the folder is renamed into place

The frozen backbone is not in it; `identity` holds its fingerprint and is checked on resume.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from cluster import publish
from fss import shards

logger = logging.getLogger(__name__)
State = dict[str, torch.Tensor]


def collect(engine: Any, moments: tuple[str, ...]) -> State:
    """The whole training state on the CPU; with ZeRO every rank must call this together."""
    state: State = {}
    for name, parameter in _trained(engine):
        state[f"parameter/{name}"] = _whole_parameter(engine, parameter)
        for moment in moments:
            value = _whole_moment(engine, parameter, moment)
            if value is not None:
                state[f"{moment}/{name}"] = value
    for name, buffer in engine.module.named_buffers():
        state[f"buffer/{name}"] = buffer.detach()
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def restore(engine: Any, state: Mapping[str, torch.Tensor], moments: tuple[str, ...], step: int) -> None:
    """Put `state` back into an engine of any world size and ZeRO stage; every rank calls this with the same state."""
    for name, parameter in _trained(engine):
        _set_parameter(engine, parameter, state[f"parameter/{name}"])
        for moment in moments:
            if f"{moment}/{name}" in state:
                _set_moment(engine, parameter, moment, state[f"{moment}/{name}"])
    for entry in _base_optimizer(engine).state.values():
        if "step" in entry:
            entry["step"] = torch.full_like(torch.as_tensor(entry["step"]), step)
    with torch.no_grad():
        for name, buffer in engine.module.named_buffers():
            buffer.copy_(state[f"buffer/{name}"])


def write(folder: Path, step: int, state: State, identity: Mapping[str, Any], keep: int) -> None:
    """Publish a checkpoint as a whole folder and drop all but the newest `keep`."""
    data = save(state)
    temporary = folder / f".step-{uuid.uuid4().hex[:8]}.tmp"
    publish.write_bytes(temporary / "state.safetensors", data)
    publish.write_json(temporary / "meta.json", {"step": step, "sha256": shards.sha256(data), **identity})
    target = folder / f"step-{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    for left in folder.glob(".step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def newest(folder: Path, identity: Mapping[str, Any]) -> tuple[int, State] | None:
    """Step and state of the newest whole checkpoint, or None.

    Raises:
        ValueError: if it was made by another configuration or backbone.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            meta = publish.read_json(path / "meta.json")
            data = (path / "state.safetensors").read_bytes()
        except (OSError, ValueError) as error:
            logger.warning("checkpoint %s cannot be read (%s), trying the one before", path, error)
            continue
        if shards.sha256(data) != meta["sha256"]:
            logger.warning("checkpoint %s is damaged, trying the one before", path)
            continue
        other = {key: meta.get(key) for key in identity if meta.get(key) != identity[key]}
        if other:
            raise ValueError(f"checkpoint {path} belongs to another run: expected {dict(identity)}, got {other}")
        return int(meta["step"]), load(data)
    return None


def _trained(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in engine.module.named_parameters() if p.requires_grad)


def _sharded(engine: Any) -> bool:
    return engine.zero_optimization_stage() > 0 or engine.bfloat16_enabled()


def _base_optimizer(engine: Any) -> torch.optim.Optimizer:
    optimizer = engine.optimizer
    return getattr(optimizer, "optimizer", optimizer)


def _whole_parameter(engine: Any, parameter: nn.Parameter) -> torch.Tensor:
    if not _sharded(engine):
        return parameter.detach().float()
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(parameter)


def _whole_moment(engine: Any, parameter: nn.Parameter, moment: str) -> torch.Tensor | None:
    if not _sharded(engine):
        return _base_optimizer(engine).state.get(parameter, {}).get(moment)
    from deepspeed.utils import safe_get_full_optimizer_state

    return safe_get_full_optimizer_state(parameter, moment)


def _set_parameter(engine: Any, parameter: nn.Parameter, value: torch.Tensor) -> None:
    if not _sharded(engine):
        parameter.data.copy_(value)
        return
    from deepspeed.utils import safe_set_full_fp32_param

    safe_set_full_fp32_param(parameter, value.to(parameter.device))


def _set_moment(engine: Any, parameter: nn.Parameter, moment: str, value: torch.Tensor) -> None:
    if not _sharded(engine):
        entry = _base_optimizer(engine).state[parameter]
        entry[moment] = value.to(parameter.device, copy=True)
        entry.setdefault("step", torch.tensor(0.0))
        return
    from deepspeed.utils import safe_set_full_optimizer_state

    safe_set_full_optimizer_state(parameter, value.to(parameter.device), moment)
