"""Every tensor of a checkpoint file, read without running code from it, or what the file is instead of a checkpoint.

A file is known by its content, not by its suffix: safetensors, or what `torch.load(weights_only=True)` accepts. The
index of a checkpoint in shards is known by its suffix `.json`; its shards lie beside it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping

import torch

ACCEPTED = (
    'accepted: "random", "torchvision", "timm", or a local path or fsspec address (s3://bucket/file, hf://owner/name/'
    "file) of safetensors, of a state dict saved with torch.save, or of the .index.json of safetensors in shards"
)
#: What people have under the name of weights: first bytes, what that is, and the remedy.
_OTHERS = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a git-lfs pointer, not the file it stands for",
        "run git lfs pull",
    ),
    (rb"(?i)\s*<(!doctype|html|\?xml|head)", "a web page", "download the file itself, maybe after a log-in"),
    (rb"\s*[{\[]", "JSON text", "give the weights, or the index of shards under its name *.index.json"),
    (rb"\x89HDF", "HDF5, as Keras saves it", "convert it to safetensors"),
    (rb"GGUF", "GGUF", "convert it to safetensors"),
    (rb"\x93NUMPY", "a NumPy array", "convert it to safetensors"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed file", "unpack it first"),
)
_SHARD = re.compile(r"[^/\\:]+")


def read(path: str) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint as they were saved, on the CPU, by the dotted names of where they lie in it.

    What is no tensor (epochs, settings) is passed over. Raises ValueError if the file or a shard cannot be read, is no
    checkpoint, holds pickled objects, or describes tensors that it does not hold.
    """
    if not path.endswith(".json"):
        return _named(path, _decode(path, _fetch(path)))
    state: dict[str, torch.Tensor] = {}
    for shard, keys in _shards(path).items():
        tensors = _named(shard, _decode(shard, _fetch(shard)))
        if set(tensors) != keys:
            raise ValueError(
                f"weights {shard!r}: expected the tensors that {path!r} says, got others, for example"
                f" {min(set(tensors) ^ keys)}; copy the index and all its shards again"
            )
        state |= tensors
    return state


def files(path: str) -> list[str]:
    """Paths or addresses of all files that `read` reads; ValueError for an index that is none."""
    return [path, *_shards(path)] if path.endswith(".json") else [path]


def _shards(path: str) -> dict[str, set[str]]:
    """The tensors that an index says of each shard, by the shard's path."""
    try:
        places = json.loads(_fetch(path))["weight_map"]
        shards = {name: {key for key in places if places[key] == name} for name in sorted(set(places.values()))}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if str(error).startswith("cannot read"):
            raise
        raise ValueError(f"weights {path!r}: expected an index of shards (weight_map), got other JSON") from error
    strange = [name for name in shards if not isinstance(name, str) or not _SHARD.fullmatch(name) or name == ".."]
    if strange or not shards:
        raise ValueError(f"weights {path!r}: expected names of shards beside the index, got {strange or 'none'}")
    folder = path[: path.rfind("/") + 1]
    return {folder + name: keys for name, keys in shards.items()}


def _fetch(path: str) -> bytes:
    """All bytes of a local file or fsspec address."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as stream:
            return stream.read()
    except IsADirectoryError as error:
        raise ValueError(f"cannot read weights {path!r}: a folder; name the file in it, or its .index.json") from error
    except FileNotFoundError as error:
        raise ValueError(f"cannot read weights {path!r}: there is no such file; {ACCEPTED}") from error
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"cannot read weights {path!r} ({error}); {ACCEPTED}") from error


def _decode(path: str, content: bytes) -> object:
    """What the bytes of a file hold; never runs code from it."""
    _refuse_others(path, content)
    try:
        if _is_safetensors(content):
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
        raise ValueError(f"weights {path!r} are damaged ({error}); copy the file again") from error


def _is_safetensors(content: bytes) -> bool:
    """Whether the length of a JSON header comes first; a pickle or an archive does not have the brace there."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def _refuse_others(path: str, content: bytes) -> None:
    """Raise ValueError that says what a file is, if it is nothing that holds tensors."""
    if not content:
        raise ValueError(f"weights {path!r} are an empty file; copy it again")
    if _is_safetensors(content):
        return
    for start, what, remedy in _OTHERS:
        if re.match(start, content):
            raise ValueError(f"weights {path!r} are {what}; {remedy}. {ACCEPTED}")
    if content.startswith(b"PK"):
        _refuse_archive(path, content)
    elif content[:1] != b"\x80" and content[257:262] != b"ustar":  # pickles of torch before 1.6, tars before 0.1.10
        raise ValueError(f"weights {path!r} are damaged or no weights (they begin with {content[:8]!r}); {ACCEPTED}")


def _refuse_archive(path: str, content: bytes) -> None:
    """Raise ValueError for a zip that torch.save did not write, or that unpacks to more than it holds."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError) as error:
        raise ValueError(f"weights {path!r} are damaged (a zip without its end); copy the file again") from error
    if any("/code/" in entry.filename for entry in entries):
        raise ValueError(f"weights {path!r} are TorchScript, a program; save its state_dict() instead. {ACCEPTED}")
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise ValueError(f"weights {path!r} are a zip that torch.save did not write; unpack it. {ACCEPTED}")
    if sum(entry.file_size for entry in entries) > len(content):
        raise ValueError(f"weights {path!r} unpack to more than their {len(content)} bytes; save them with torch.save")


def _named(path: str, content: object) -> dict[str, torch.Tensor]:
    """All tensors inside mappings and sequences."""
    state: dict[str, torch.Tensor] = {}
    for key, tensor in _walk(content):
        if key in state:
            raise ValueError(f"weights {path!r} name two tensors {key}; save one of them")
        state[key] = _held(path, key, tensor)
    if not state:
        raise ValueError(f"weights {path!r}: expected a state dict, got {type(content).__name__} without tensors")
    return state


def _walk(content: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in the order of the file; a container that stands in many places, even in itself, is entered once."""
    entered: set[int] = set()
    left: list[tuple[str, object]] = [("", content)]
    while left:
        place, value = left.pop()
        if isinstance(value, torch.Tensor):
            yield place, value
            continue
        inside: list[tuple[object, object]] = []
        if isinstance(value, Mapping | list | tuple) and id(value) not in entered:
            entered.add(id(value))
            inside = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
        left += [(f"{place}.{key}" if place else str(key), part) for key, part in reversed(inside)]


def _held(path: str, key: str, tensor: torch.Tensor) -> torch.Tensor:
    """A plain tensor; ValueError if it is sparse or has more elements than are stored: a kilobyte may stand for any."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise ValueError(f"weights {path!r}: expected plain tensors, {key} is sparse or without data; save it dense")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"weights {path!r}: {key} repeats what is stored to shape {tuple(tensor.shape)}; save it contiguous"
        )
    return tensor.dequantize() if tensor.is_quantized else tensor
