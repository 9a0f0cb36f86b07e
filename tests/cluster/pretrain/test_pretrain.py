"""Pre-training on several workers: contrast and normalisation over the batch that they share."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing

from cluster.pretrain.collective import process_group
from fss.backbones.small import SmallNet
from fss.pretraining.contrast import ContrastConfig, PretrainModel
from fss.pretraining.process_group import SharedBatchNorm
from fss.pretraining.proposals import propose
from fss.pretraining.views import ViewConfig, Views, make_views
from fss.scenes.scene import render

IMAGES = 6


def views_of(indices: range) -> Views:
    """Two views of each scene; every second one keeps a single proposal, so that the shares' numbers of them differ."""
    pixels = torch.stack([torch.from_numpy(np.array(render(0, i, 64)[0])).permute(2, 0, 1) for i in indices]) / 255
    proposals = propose(pixels)
    proposals[[i % 2 == 1 for i in indices]] %= 2
    return make_views(pixels, proposals, torch.tensor(list(indices)), seed=0, config=ViewConfig(crop=64, grid=8))


def outcome(indices: range) -> dict[str, torch.Tensor]:
    """Gradients and running statistics after one step, and the loss."""
    model = PretrainModel(SmallNet(seed=0), ContrastConfig(bfloat16=False), group=process_group())
    loss = model(views_of(indices))["loss"]
    loss.backward()
    gradients = {f"gradient/{name}": p.grad for name, p in model.named_parameters()}
    statistics = {name: buffer.float() for name, buffer in model.named_buffers()}
    assert all(value is not None for value in gradients.values())
    return {"loss": loss.detach()} | {k: v.contiguous() for k, v in (gradients | statistics).items() if v is not None}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    found = outcome(range(rank, IMAGES, 2))
    for name, value in found.items():
        if name == "loss" or name.startswith("gradient/"):
            distributed.all_reduce(value.div_(2))
    save_file(found, f"{folder}/{rank}.safetensors")
    distributed.destroy_process_group()


def test_two_workers_have_the_gradient_of_one_that_holds_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    alone = outcome(range(IMAGES))
    assert alone["loss"] > 1
    for rank in (0, 1):
        shared = load_file(tmp_path / f"{rank}.safetensors")
        assert shared.keys() == alone.keys()
        torch.testing.assert_close(shared["loss"], alone["loss"])
        for name, value in alone.items():
            if name.startswith("gradient/"):  # which rounding moves where it takes a unit across ReLU's zero
                assert (shared[name] - value).norm() < 0.02 * value.norm(), name
            else:
                torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_norms_that_are_shared_by_one_worker_are_the_usual_ones() -> None:
    torch.manual_seed(0)
    for options in ({}, {"affine": False}, {"momentum": None}):
        ours, usual = SharedBatchNorm(3, **options), torch.nn.BatchNorm2d(3, **options)
        for x in torch.randn(3, 4, 3, 5, 5) * 2 + 1:
            torch.testing.assert_close(ours(x), usual(x))
            assert ours(x.bfloat16()).dtype == torch.bfloat16
            usual(x.bfloat16())
        for module in (ours, usual):
            module.eval()
        torch.testing.assert_close(ours.state_dict(), usual.state_dict(), rtol=1e-3, atol=1e-3)
        assert torch.equal(
            ours(x), torch.nn.functional.batch_norm(x, ours.running_mean, ours.running_var, ours.weight, ours.bias)
        )
