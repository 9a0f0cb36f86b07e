"""What a checkpoint file holds, and what a file is that holds none."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from fss import backbones
from fss.backbones import checkpoint

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def assert_state(found):
    assert set(found) == set(STATE)
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".pth", ".bin", ""])
def test_a_format_is_known_by_its_content(tmp_path, suffix):
    path = str(tmp_path / f"weights{suffix}")
    safetensors.torch.save_file(STATE, path)
    assert_state(checkpoint.read(path))
    for new in (True, False):
        torch.save(STATE, path, _use_new_zipfile_serialization=new)
        assert_state(checkpoint.read(path))


def test_tensors_at_any_depth_are_named_by_their_place(tmp_path):
    inner = {"w": torch.ones(1)}
    inner["self"] = inner
    torch.save({"epoch": 3, "model": inner, "optimizer": [{"m": torch.zeros(2)}, 5]}, tmp_path / "deep.pth")
    assert set(checkpoint.read(str(tmp_path / "deep.pth"))) == {"model.w", "optimizer.0.m"}
    torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, tmp_path / "twice.pth")
    with pytest.raises(ValueError, match=r"name two tensors a\.b"):
        checkpoint.read(str(tmp_path / "twice.pth"))


def archive(names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, bytes(10_000))
    return stream.getvalue()


def array():
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<HTML>404", "a web page"),
        (b'{"weight_map": {}}', r"JSON text.*\.index\.json"),
        (b"\x89HDF\r\n", "HDF5"),
        (gzip.compress(b"weights", mtime=0), "a compressed file; unpack"),
        (array(), "a NumPy array"),
        (archive(["m/data.pkl", "m/code/net.py"]), "TorchScript"),
        (archive(["a.npy"]), "a zip that torch.save did not write"),
        (archive(["m/data.pkl", "m/data/0"]), "unpack to more than their"),
        (b"PK\3\4 cut", "a zip without its end"),
        (b"Not found", "damaged or no weights.*begin with b'Not foun'"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path, content, said):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.pth.*{said}") as raised:
        backbones.build("small", str(tmp_path / "weights.pth"))
    assert "pickle" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
def test_tensors_that_are_not_held_are_refused(tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save({"a": torch.zeros(1).expand(1000, 1000)}, path)
    with pytest.raises(ValueError, match=r"a repeats what is stored to shape \(1000, 1000\)"):
        checkpoint.read(path)
    torch.save({"a": torch.eye(3).to_sparse()}, path)
    with pytest.raises(ValueError, match="a is sparse or without data"):
        checkpoint.read(path)
    torch.save({"a": torch.empty(10**6, 10**6, device="meta")}, path)
    with pytest.raises(ValueError, match="a is sparse or without data"):
        checkpoint.read(path)


def test_views_of_a_larger_storage_and_tied_weights_are_held(tmp_path):
    whole = torch.arange(12.0)
    torch.save({"a": whole[2:4], "b": whole.view(3, 4).T, "c": whole}, tmp_path / "weights.pth")
    found = checkpoint.read(str(tmp_path / "weights.pth"))
    assert torch.equal(found["b"], whole.view(3, 4).T)
    assert torch.equal(found["a"], whole[2:4])


@pytest.mark.filterwarnings(
    "ignore:torch.quantize_per_tensor:UserWarning", "ignore:TypedStorage is deprecated:UserWarning"
)
def test_torchs_own_quantised_tensors_carry_their_scale(tmp_path):
    values = torch.tensor([0.5, -1.0, 0.25])
    torch.save({"a": torch.quantize_per_tensor(values, 0.25, 0, torch.qint8)}, tmp_path / "weights.pth")
    assert torch.equal(checkpoint.read(str(tmp_path / "weights.pth"))["a"], values)


# ------------------------------------------------------------------------------------------------ shards


def sharded(folder, state, index=None):
    """The path of an index of two shards."""
    places = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(state)}
    for name in sorted(set(places.values())):
        safetensors.torch.save_file(
            {key: state[key].contiguous() for key in state if places[key] == name}, folder / name
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places} if index is None else index))
    return str(folder / "model.safetensors.index.json")


def test_shards_are_read_by_their_index_and_one_alone_says_so(tmp_path):
    state = backbones.build("small", seed=3).net.state_dict()
    path = sharded(tmp_path, state)
    backbone = backbones.build("small", path)
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.net.state_dict().items())
    assert len(backbone.report.matched) == len(state)
    assert len(checkpoint.files(path)) == 3
    with pytest.raises(ValueError, match=r"one of several shards: give their \.index\.json"):
        backbones.build("small", checkpoint.files(path)[1])


def test_a_shard_that_is_gone_or_another_is_refused_by_name(tmp_path):
    path = sharded(tmp_path, STATE)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    safetensors.torch.save_file({"c": torch.zeros(1)}, shard)
    with pytest.raises(ValueError, match=r"model-00002-of-00002.*got others, for example b"):
        checkpoint.read(path)
    shard.unlink()
    with pytest.raises(ValueError, match=r"cannot read weights .*model-00002-of-00002"):
        checkpoint.read(path)


def test_a_folder_and_half_a_file_are_called_so(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read weights '.*': a folder; name the file in it, or its"):
        checkpoint.read(str(tmp_path))
    path = tmp_path / "half.safetensors"
    whole = safetensors.torch.save({"c": torch.zeros(9)})
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"half.safetensors' are damaged \(.*\); copy the file again"):
        checkpoint.read(str(path))


@pytest.mark.parametrize("index", [{}, [], {"weight_map": []}, {"weight_map": {"a": {}}}, {"config": 1}])
def test_json_that_is_no_index_is_refused(tmp_path, index):
    with pytest.raises(ValueError, match="expected an index of shards"):
        checkpoint.read(sharded(tmp_path, STATE, index))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "s3://bucket/x", "..", "", 7])
def test_an_index_names_files_beside_it_only(tmp_path, name):
    with pytest.raises(ValueError, match="expected names of shards beside the index"):
        checkpoint.read(sharded(tmp_path, STATE, {"weight_map": {"a": name}}))
