"""Training state that does not depend on the number of workers or the ZeRO stage, in files that execute nothing.

    checkpoints/step-00000200/state.safetensors    parameters, buffers, optimiser moments, averaged weights; float32
    checkpoints/step-00000200/meta.json            step, identity of the run, sha256 of the state, and of all this;
                                                   written last: a checkpoint without it is none

The frozen backbone is not in it; `identity` holds its fingerprint and is checked on resume.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from cluster.engine import publish
from cluster.storage import paths
from fss import shards

logger = logging.getLogger(__name__)
State = dict[str, torch.Tensor]
_STATE, _META = "state.safetensors", "meta.json"


def collect(engine: Any, moments: tuple[str, ...]) -> State:
    """The whole training state on the CPU; with ZeRO every rank must call this together."""
    state: State = {}
    names, parameters = zip(*_trained(engine), strict=True)
    for name, own in zip(names, values(engine, parameters, moments), strict=True):
        state |= {f"{kind}/{name}": value for kind, value in own.items()}
    state |= {f"buffer/{name}": buffer for name, buffer in _buffers(engine)}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def values(engine: Any, parameters: Sequence[nn.Parameter], moments: tuple[str, ...]) -> list[State]:
    """Each parameter's value and moments, in float32; with ZeRO every rank must call this together."""
    if not engine.zero_optimization_stage():
        return [_local(engine.optimizer, parameter, moments) for parameter in parameters]
    _ready(engine, moments)
    states = (_gather(parameter, moments) for parameter in parameters)
    return [{kind: value.clone() for kind, value in one.items()} for one in states]


def put(engine: Any, parameter: nn.Parameter, state: State) -> None:
    """Give a parameter the value and the moments that `values` found; every rank calls this with the same."""
    if engine.zero_optimization_stage():
        _scatter(parameter, state)
    else:
        kept = {kind: value.clone() for kind, value in state.items() if kind != "parameter"}
        engine.optimizer.state[parameter] = kept | {"step": torch.tensor(0.0)}
    with whole([parameter], write=True), torch.no_grad():
        parameter.copy_(state["parameter"])


def restore(engine: Any, state: Mapping[str, torch.Tensor], moments: tuple[str, ...], step: int) -> None:
    """Put `state` back into an engine of any world size and ZeRO stage; every rank calls this with the same state."""
    if engine.zero_optimization_stage():
        _ready(engine, moments)
    for name, parameter in _trained(engine):
        put(engine, parameter, {kind: state[f"{kind}/{name}"].to(engine.device) for kind in ("parameter", *moments)})
    base = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for entry in base.state.values():
        if "step" in entry:
            entry["step"] = torch.full_like(torch.as_tensor(entry["step"]), step)
    with torch.no_grad():
        for name, buffer in _buffers(engine):
            buffer.copy_(state[f"buffer/{name}"])


@contextlib.contextmanager
def whole(parameters: Sequence[nn.Parameter], write: bool = False) -> Iterator[None]:
    """Inside, every parameter is whole on every rank, also under ZeRO-3; `write` keeps changes made to it."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if write else None):
        yield


class Checkpoints:
    """The newest checkpoints in a folder that nobody else writes to meanwhile."""

    def __init__(self, folder: Path, number: int):
        self._folder, self._number = folder, number

    @functools.cached_property
    def _there(self) -> list[Path]:
        return paths.matching(self._folder, "step-*")

    def write(self, step: int, state: State, identity: Mapping[str, Any]) -> None:
        """Publish a checkpoint and drop all but the newest."""
        data, target = save(state), self._folder / f"step-{step:08d}"
        publish.write_bytes(target / _STATE, data)
        publish.write_sealed(target / _META, {"step": step, "sha256": shards.sha256(data), **identity})
        there = sorted({*self._there, target})
        self._there = there[-self._number :]
        for old in there[: -self._number]:
            paths.remove_tree(old, (_META, _STATE))


def drop(folder: Path, step: int) -> int:
    """Remove the checkpoints of `step` and of later steps; return how many there were."""
    late = [path for path in paths.matching(folder, "step-*") if path.name >= f"step-{step:08d}"]
    for path in late:
        paths.remove_tree(path)
    return len(late)


def newest(folder: Path, identity: Mapping[str, Any]) -> tuple[int, State] | None:
    """Step and state of the newest whole checkpoint, or None.

    Raises:
        ValueError: if it was made by another configuration or backbone.
    """
    for path in (about.parent for about in reversed(paths.matching(folder, f"step-*/{_META}"))):
        meta, data = publish.read_sealed(path / _META), next(paths.read_each([path / _STATE]))
        if meta is None or data is None or shards.sha256(data) != meta["sha256"]:
            logger.warning("checkpoint %s is damaged, trying the one before", path)
            continue
        other = {key: meta.get(key) for key in identity if meta.get(key) != identity[key]}
        if other:
            raise ValueError(
                f"checkpoint {path} belongs to another run: expected {dict(identity)}, got {other}; set the backbone "
                "and options that it was made with, or start anew under another name=..."
            )
        return int(meta["step"]), load(data)
    return None


def _buffers(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that training changes: not a frozen backbone's."""
    frozen = getattr(engine.module, "unchanging", ())
    return ((name, buffer) for name, buffer in engine.module.named_buffers() if not name.startswith(tuple(frozen)))


def _trained(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in engine.module.named_parameters() if p.requires_grad)


def _local(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, moments: tuple[str, ...]) -> State:
    kept = optimizer.state.get(parameter, {})
    zeros = torch.zeros_like(parameter)
    return {"parameter": parameter.detach().float(), **{kind: kept.get(kind, zeros) for kind in moments}}


def _ready(engine: Any, moments: tuple[str, ...]) -> None:
    """Make sure that ZeRO's optimiser holds moments for all its partitions and that parameters find them.

    A fresh engine has none, and DeepSpeed links parameters to moments after the first parameter group's first step, so
    that those of the other groups are not found.
    """
    optimizer = engine.optimizer
    stage3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    for flat in optimizer.fp32_partitioned_groups_flat if stage3 else optimizer.single_partition_of_fp32_groups:
        entry = optimizer.optimizer.state[flat]
        for kind in moments:
            if kind not in entry:
                entry[kind] = torch.zeros_like(flat)
        entry.setdefault("step", torch.tensor(0.0))
    if not stage3:
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _gather(parameter: nn.Parameter, moments: tuple[str, ...]) -> State:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    parts = {kind: safe_get_full_optimizer_state(parameter, kind) for kind in moments}
    return {"parameter": safe_get_full_fp32_param(parameter), **parts}


def _scatter(parameter: nn.Parameter, values: State) -> None:
    from deepspeed import utils

    set_parameter, set_moment = utils.safe_set_full_fp32_param, utils.safe_set_full_optimizer_state
    if hasattr(parameter, "ds_id"):  # ZeRO-3, whose setters of whole values fail where the last part is padded
        set_parameter, set_moment = utils.safe_set_local_fp32_param, utils.safe_set_local_optimizer_state
        size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()  # type: ignore[attr-defined]
        values = {kind: part(value, size, rank) for kind, value in values.items()}
    for kind, value in values.items():
        if kind == "parameter":
            set_parameter(parameter, value)
        else:
            set_moment(parameter, value, kind)


def part(value: torch.Tensor, size: int, rank: int) -> torch.Tensor:
    """The `size` values of flattened `value` that rank `rank` holds, zeros where there are no more."""
    own = value.flatten()[rank * size : (rank + 1) * size]
    return nn.functional.pad(own, (0, size - own.numel()))
