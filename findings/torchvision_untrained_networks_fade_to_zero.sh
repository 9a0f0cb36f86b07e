#!/usr/bin/env bash
# torchvision 0.29.1: untrained networks of depthwise convolutions answer zero, so a photo is not similar to itself.
#
# Version:    torch 2.14.1, torchvision 0.29.1, timm 1.0.31, CPython 3.11, Linux x86-64.
# Input:      two batches of noise; `weights=None`, `eval()`: the random backbone that feature learning is held against.
# Expected:   random features, as a random ResNet-18 gives: of some size, each similar to itself by 1.
# Seen:       standard deviation of the last features, and `cosine_similarity` of a feature with itself:
#             resnet18 2 and 1; mobilenet_v2 3e-9 and 1; mnasnet1_0 2e-9 and 1; efficientnet_b0 1e-13 and 2e-7 (not 1).
#             timm's efficientnet_b0 3e-5, a hundred million times as much, and 1.
# Why:        torchvision starts all convolutions with `kaiming_normal_(mode="fan_out")`, which counts the channels of all
#             groups. A depthwise output has one channel, so each such layer shrinks its input by the root of its
#             channels. Batch norms of an untrained network in `eval()` scale by 1, and do not mend it as in training.
# It matters: the baseline of a random backbone then reads rounding, and epsilons (1e-8 in `cosine_similarity`, 1e-12 in
#             `normalize`) are larger than features. Start depthwise layers by their own fan, or calibrate the norms.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import timm
import torch
import torchvision
from torch.nn.functional import cosine_similarity

torch.manual_seed(0)
noise = torch.randn(2, 3, 224, 224)
seen = {}


def look(name, features):
    with torch.inference_mode():
        cells = features(noise).flatten(2)
    itself = cosine_similarity(cells, cells, dim=1).mean()
    seen[name] = float(cells.std()), float(itself)
    print(f"{name:22} standard deviation {seen[name][0]:8.1g}, similar to itself {seen[name][1]:.1g}")


resnet = torchvision.models.resnet18(weights=None).eval()
look("resnet18", torch.nn.Sequential(*list(resnet.children())[:-2]))
look("mobilenet_v2", torchvision.models.mobilenet_v2(weights=None).eval().features)
look("mnasnet1_0", torchvision.models.mnasnet1_0(weights=None).eval().layers)
look("efficientnet_b0", torchvision.models.efficientnet_b0(weights=None).eval().features)
look("timm efficientnet_b0", timm.create_model("efficientnet_b0").eval().forward_features)
faded = all(seen[name][0] < 1e-7 for name in ("mobilenet_v2", "mnasnet1_0", "efficientnet_b0"))
if not faded or seen["efficientnet_b0"][1] > 1e-3 or min(seen["resnet18"][0], seen["timm efficientnet_b0"][1]) < 0.5:
    raise SystemExit("changed: expected features below 1e-7 of three networks, one of them not similar to itself")
PYTHON
