"""Pre-trained weights for backbones: read them safely, find the encoder in them, account for every key.

Nothing is unpickled: `.safetensors`, or a state dict that `torch.load(weights_only=True)` accepts.
"""

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fss.backbones.network import Network

logger = logging.getLogger(__name__)

ACCEPTED = (
    'accepted: "random", "torchvision", or a local path or fsspec address (s3://bucket/file) of a .safetensors file '
    "or of a state dict saved with torch.save"
)
NESTS = ("state_dict", "model", "teacher")  # torch.save({"state_dict": ...}) of MoCo, MAE and DINO checkpoints
# Where the encoder sits in a checkpoint: MoCo v1/v2, MoCo v3, DINO, wrappers of DataParallel, nothing.
PREFIXES = (
    "",
    "module.encoder_q.",
    "module.base_encoder.",
    "module.backbone.",
    "module.",
    "encoder_q.",
    "base_encoder.",
    "backbone.",
    "net.",
)
# Parts of a checkpoint that a feature extractor knowingly leaves out: classifiers, projection heads, twins, queues.
HEADS = (
    "fc.",
    "classifier.",
    "head.",
    "heads.",
    "dino_head.",
    "ibot_head.",
    "predictor.",
    "projector.",
    "decoder",
    "mask_token",
    "encoder_k.",
    "momentum_encoder.",
    "queue",
)


@dataclass(frozen=True)
class LoadReport:
    """What became of every key: the network's are `matched` or `missing`, the file's rest `unexpected` or `ignored`."""

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
    """The state dict of `weights` ("torchvision" or a path or address), floats as float32, on the CPU.

    Raises ValueError if the file cannot be found, holds anything but tensors, or torchvision cannot deliver.
    """
    state = (
        _torchvision_state(name) if weights == "torchvision" else _unwrap(_decode(weights, _fetch(weights)), weights)
    )
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def load_state(name: str, net: Network, state: Mapping[str, torch.Tensor], source: str) -> LoadReport:
    """Copy `state` into `net` after taking the encoder's prefix off its keys; warn of keys that nothing uses.

    Raises ValueError if a key of `net` is missing from `state` or has another shape. BatchNorm's `num_batches_tracked`
    may be missing: old checkpoints lack it and frozen networks do not use it.
    """
    wanted = net.state_dict()
    prefix = max(PREFIXES, key=lambda p: sum(p + key in state for key in wanted))
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    matched = {key: own[key] for key in wanted if key in own}
    rest = [key for key in state if not (key.startswith(prefix) and key.removeprefix(prefix) in wanted)]
    ignored = tuple(key for key in rest if _is_head(net.left_out, key, prefix))
    report = LoadReport(
        source=source,
        matched=tuple(matched),
        missing=tuple(key for key in wanted if key not in own and not key.endswith("num_batches_tracked")),
        unexpected=tuple(key for key in rest if key not in ignored),
        ignored=ignored,
    )
    _refuse_mismatch(name, wanted, matched, report)
    net.load_state_dict(matched, strict=False)
    if report.unexpected:
        logger.warning("%s: keys that %s does not use: %s", source, name, ", ".join(report.unexpected))
    return report


def _refuse_mismatch(
    name: str, wanted: Mapping[str, torch.Tensor], matched: Mapping[str, torch.Tensor], report: LoadReport
) -> None:
    """Raise ValueError naming the first missing keys or the first shapes that differ."""
    remedy = f"Is the file for another backbone than {name}? Save that network's plain state dict, or change the name."
    if report.missing:
        raise ValueError(
            f"{report.source}: {len(report.missing)} of {len(wanted)} keys of {name} are missing, first"
            f" {_first(report.missing)}; unused in the file: {_first(report.unexpected + report.ignored)}. {remedy}"
        )
    wrong = [
        f"{key} (expected {tuple(wanted[key].shape)}, got {tuple(tensor.shape)})"
        for key, tensor in matched.items()
        if tensor.shape != wanted[key].shape
    ]
    if wrong:
        raise ValueError(
            f"{report.source}: {len(wrong)} tensors have another shape than in {name}: {_first(wrong)}. {remedy}"
        )


def _first(keys: tuple[str, ...] | list[str], limit: int = 4) -> str:
    return ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "") or "(none)"


def _is_head(left_out: tuple[str, ...], key: str, prefix: str) -> bool:
    """Whether a key belongs to what a feature extractor leaves out, with the encoder's prefix or beside the encoder."""
    heads = HEADS + left_out
    return key.removeprefix(prefix).startswith(heads) or key.removeprefix("module.").startswith(heads)


def _torchvision_state(name: str) -> dict[str, torch.Tensor]:
    """torchvision's first ImageNet weights: the ones the field's tables use (V2 recipes give poorer dense features)."""
    import torchvision  # here, for it takes seconds, and most runs load files

    try:
        choice = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{name}: torchvision has no weights for this backbone; give a file. {ACCEPTED}") from error
    try:
        return dict(choice.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{name}: could not download {choice.url} ({error}). Without a network, copy the file to a disk that all"
            " machines see and set weights to its path"
        ) from error


def _fetch(path: str) -> bytes:
    """All bytes of a local file or fsspec address."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as stream:
            return stream.read()
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"cannot read weights {path!r} ({type(error).__name__}: {error}); {ACCEPTED}") from error


def _decode(path: str, content: bytes) -> object:
    """Tensors from the bytes of a file; never runs code from it."""
    try:
        if path.endswith(".safetensors"):
            import safetensors.torch

            return safetensors.torch.load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # each of the two readers has its own family of errors for a bad file
        if "Weights only load failed" in str(error):  # torch's safe reader met something that is no tensor
            raise ValueError(
                f"weights {path!r} hold pickled Python objects besides tensors; loading them would run code from the"
                " file, which is refused. On a machine where the file is trusted, save only its state dict again,"
                " best with safetensors.torch.save_file"
            ) from error
        raise ValueError(f"weights {path!r} are damaged or no weights ({type(error).__name__}); {ACCEPTED}") from error


def _unwrap(content: object, path: str) -> dict[str, torch.Tensor]:
    """The flat state dict inside the usual nests; values that are not tensors are refused."""
    for nest in NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"weights {path!r}: expected a state dict, got {type(content).__name__}; {ACCEPTED}")
    other = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise ValueError(
            f"weights {path!r}: expected a state dict (names to tensors, maybe inside {', '.join(NESTS)}),"
            f" but {_first(other)} are no tensors"
        )
    return dict(content)
