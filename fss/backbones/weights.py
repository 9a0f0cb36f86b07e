"""Pre-trained weights for backbones: find the network in what a checkpoint holds, and account for every tensor of it.

A checkpoint wraps the network's keys in names of its own (`state_dict.`, `module.`, `_orig_mod.`, `model.backbone.`).
None of these is listed: the beginning with which most keys are the network's is taken off.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fss.backbones import checkpoint
from fss.backbones.network import Network, Renamed, State

logger = logging.getLogger(__name__)

#: Of several copies that fit, the averaged one is meant (DINO's teacher, timm's EMA) ..
_AVERAGED = re.compile(r"(^|[._])(teacher|ema)([._]|$)")
#: .. and never these: what a teacher was made from, what the query encoder is compared with, and optimizers' moments.
_TWIN = re.compile(r"(^|[._])(student|encoder_k|key_encoder|momentum\w*|target\w*|optim\w*|exp_avg\w*)([._]|$)")
#: Parts of a checkpoint that a feature extractor knowingly leaves out: classifiers, projection heads, twins, queues,
#: and what an exported backbone has beside its network.
_LEFT_OUT = re.compile(
    r"(^|\.)(fc|classifier|heads?|head_dist|dino_head|ibot_head|predictor|projector|pooler|decoder\w*|mask_token|queue\w*"
    r"|debias|input_scale|input_shift|criterion|loss\w*|scheduler\w*|lr_schedulers|callbacks)(\.|$)"
)
#: Old checkpoints lack these counters of BatchNorm, and frozen networks do not use them.
_COUNTER = "num_batches_tracked"
_SPOILT = "the training that made them went wrong, or the file is damaged: take another checkpoint"
_SCALE = re.compile(r"_(scale\w*|zero_point)$")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor: the file's are `matched`, `unexpected` or `ignored`; `missing` are the network's."""

    source: str
    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for a log."""
        counts = ", ".join(f"{len(getattr(self, k))} {k}" for k in ("matched", "missing", "unexpected", "ignored"))
        return f"{self.source}: {counts}"


def read_state(name: str, weights: str) -> dict[str, torch.Tensor]:
    """All tensors of `weights` ("torchvision", a path or address) as saved, on the CPU, see `checkpoint.read`.

    Raises ValueError if the file cannot be found or is no checkpoint, or torchvision cannot deliver.
    """
    return _torchvision_state(name) if weights == "torchvision" else checkpoint.read(weights)


def renamed(network: type[Network], state: State) -> Renamed:
    """`state` with the names that `network` has for its tensors; parts of one tensor are joined.

    Raises ValueError if two tensors are the same part of one, or parts do not fit together.
    """
    parts: dict[str, dict[int, str]] = {}
    for key in state:
        own, part = network.own_part(key)
        first = parts.setdefault(own, {}).setdefault(part, key)
        if first != key:
            raise ValueError(f"the weights have two tensors for {own}: {first} and {key}; save one of them alone")
    origins = {own: tuple(keys[part] for part in sorted(keys)) for own, keys in parts.items()}
    return Renamed({own: _joined(own, [state[key] for key in keys]) for own, keys in origins.items()}, origins)


def _joined(own: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0]
    kinds = {(part.dtype, part.shape) for part in parts}
    if len(kinds) != 1 or not parts[0].ndim:
        raise ValueError(f"the weights have parts of {own} that do not fit together: {sorted(map(str, kinds))}")
    return torch.cat(list(parts))


def load_state(name: str, net: Network, given: Renamed, source: str) -> LoadReport:
    """Copy a checkpoint into `net` after taking the wrapper off its keys; warn of tensors that nothing uses.

    Raises ValueError if a key of `net` is missing or has another shape, is quantised without its scale or is not
    finite, or if several networks fit. BatchNorm's `num_batches_tracked` may be missing.
    """
    wanted = net.loaded.state_dict()
    prefix = _prefix(wanted, given.tensors, source)
    given = net.converted(given, prefix)
    known = {key: given.tensors[prefix + key] for key in wanted if prefix + key in given.tensors}
    scales = [f"{prefix}{key}_scale" for key in known if f"{prefix}{key}_scale" in given.tensors]
    used = {origin for own in [*(prefix + key for key in known), *scales] for origin in given.origins[own]}
    rest = [origin for keys in given.origins.values() for origin in keys if origin not in used]
    ignored = {key for key in rest if _leaves_out(net.left_out, key, prefix)}
    report = LoadReport(
        source=source,
        matched=tuple(dict.fromkeys(origin for keys in given.origins.values() for origin in keys if origin in used)),
        missing=tuple(key for key in wanted if key not in known and not key.endswith(_COUNTER)),
        unexpected=tuple(key for key in rest if key not in ignored),
        ignored=tuple(key for key in rest if key in ignored) + given.left_out,
    )
    _refuse_missing(name, len(wanted), report)
    matched = {key: _unscaled(source, prefix + key, tensor, given.tensors) for key, tensor in known.items()}
    fitted = net.fitted(matched)
    net.loaded.load_state_dict(checked(name, wanted, fitted, source), strict=False)
    if report.unexpected:
        logger.warning("%s: keys that %s does not use: %s", source, name, ", ".join(report.unexpected))
    return report


def under_prefix(wanted: State, state: State, source: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that have names of `wanted`, whatever wraps them, without what wraps them.

    Raises ValueError if several different networks of these names are there and none is the one that is meant.
    """
    prefix = _prefix(wanted, state, source)
    return {key: state[prefix + key] for key in wanted if prefix + key in state}


def checked(name: str, wanted: State, state: State, source: str) -> dict[str, torch.Tensor]:
    """The tensors `state` for a network `name` that has the tensors `wanted`; floats become float32.

    Raises ValueError for another shape, and where `wanted` has floats, for integers, floats of one byte, values that
    are not finite, negative variances, and weights that all hold one number.
    """
    _refuse_shapes(name, wanted, state, source)
    floats = {key: tensor for key, tensor in state.items() if key in wanted and wanted[key].is_floating_point()}
    coded = [f"{k} ({t.dtype})" for k, t in floats.items() if not t.is_floating_point() or t.element_size() < 2]
    if coded:
        raise ValueError(
            f"{source}: {len(coded)} tensors are quantised and their scale is not there: {_first(coded)}; save the"
            " network in float32, float16 or bfloat16"
        )
    whole = {key: tensor.float() for key, tensor in floats.items()}
    wild = [key for key, tensor in whole.items() if not tensor.isfinite().all()]
    below = [key for key, tensor in whole.items() if key.endswith("running_var") and (tensor < 0).any()]
    large = [tensor for tensor in whole.values() if tensor.ndim > 1]
    for wrong, what in ((wild, "values that are not finite as float32"), (below, "variances below 0")):
        if wrong:
            raise ValueError(f"{source}: {len(wrong)} tensors hold {what}: {_first(wrong)}; {_SPOILT}")
    if large and all(tensor.min() == tensor.max() for tensor in large):
        raise ValueError(f"{source}: each of its weights holds one number everywhere; {_SPOILT}")
    return {**state, **whole}


def _prefix(wanted: State, state: State, source: str) -> str:
    """What comes before most of the network's keys; of several that all fit, the one that is meant."""
    names = {key for key in wanted if not key.endswith(_COUNTER)}
    hits: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    for key, tensor in state.items():
        for start in [0, *(dot.end() for dot in re.finditer(r"\.", key))]:
            if key[start:] in names:
                hits[key[:start]] += 1
                shapes[key[:start]] += tensor.shape == wanted[key[start:]].shape
    if not hits:
        return ""
    best = max((hits[prefix], shapes[prefix], -_rank(prefix)) for prefix in hits)
    first, *others = [prefix for prefix in hits if (hits[prefix], shapes[prefix], -_rank(prefix)) == best]
    whole = best[0] == len(names)
    unlike = [p for p in others if whole and not all(torch.equal(state[p + k], state[first + k]) for k in names)]
    if unlike:
        raise ValueError(
            f"{source}: {1 + len(unlike)} different networks fit: {_first([first, *unlike])}; save one of them alone"
        )
    return first


def _rank(prefix: str) -> int:
    """0 for the copy that is meant, 2 for one that never is, 1 for all others."""
    return 2 if _TWIN.search(prefix) else 0 if _AVERAGED.search(prefix) else 1


def _unscaled(source: str, key: str, tensor: torch.Tensor, state: State) -> torch.Tensor:
    """The tensor times its scale, if `key`_scale is there: one number, or one for each output channel.

    Raises ValueError for any other way to scale.
    """
    scales = [other for other in state if other.startswith(f"{key}_") and _SCALE.fullmatch(other[len(key) :])]
    if not scales:
        return tensor
    scale = state[scales[0]]
    by_row = tensor.ndim > 0 and scale.shape[:1] == tensor.shape[:1] and scale.numel() == len(tensor)
    if scales != [f"{key}_scale"] or not (scale.numel() == 1 or by_row):
        raise ValueError(
            f"{source}: expected {key} plain or with {key}_scale of one number or one for each of its rows, got"
            f" {', '.join(f'{other} {tuple(state[other].shape)}' for other in scales)}; save the network in float32"
        )
    return tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))


def _refuse_missing(name: str, wanted: int, report: LoadReport) -> None:
    """Raise ValueError naming the first missing keys."""
    if not report.missing:
        return
    shard = re.search(r"-\d{5}-of-\d{5}", report.source)
    remedy = "This is one of several shards: give their .index.json." if shard else _remedy(name)
    raise ValueError(
        f"{report.source}: {len(report.missing)} of {wanted} keys of {name} are missing, first"
        f" {_first(report.missing)}; unused in the file: {_first(report.unexpected + report.ignored)}. {remedy}"
    )


def _refuse_shapes(name: str, wanted: State, state: State, source: str) -> None:
    """Raise ValueError naming the first shapes that differ."""
    wrong = [
        f"{key} (expected {tuple(wanted[key].shape)}, got {tuple(tensor.shape)})"
        for key, tensor in state.items()
        if tensor.shape != wanted[key].shape
    ]
    if wrong:
        raise ValueError(
            f"{source}: {len(wrong)} tensors have another shape than in {name}: {_first(wrong)}. {_remedy(name)}"
        )


def _remedy(name: str) -> str:
    return f"Is the file for another backbone than {name}? Save that network's plain state dict, or change the name."


def _first(keys: tuple[str, ...] | list[str], limit: int = 4) -> str:
    return ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "") or "(none)"


def _leaves_out(left_out: tuple[str, ...], key: str, prefix: str) -> bool:
    """Whether a key of the file belongs to what a feature extractor does without, or to a copy that is not meant."""
    key = key.removeprefix(prefix)
    return key.startswith(left_out) or any(words.search(key) for words in (_LEFT_OUT, _TWIN))


def _torchvision_state(name: str) -> dict[str, torch.Tensor]:
    """torchvision's first ImageNet weights: the ones the field's tables use (V2 recipes give poorer dense features)."""
    import torchvision  # here, for it takes seconds, and most runs load files

    try:
        choice = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{name}: torchvision has no weights for this backbone; give a file. {checkpoint.ACCEPTED}"
        ) from error
    try:
        return dict(choice.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{name}: could not download {choice.url} ({error}). Without a network, copy the file to a disk that all"
            " machines see and set weights to its path"
        ) from error
