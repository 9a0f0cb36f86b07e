#!/usr/bin/env bash
# timm 1.0.31 and transformers 5.24.0: the same DINOv2 table of positions becomes two at every size but the trained one.
#
# Version:    timm 1.0.31, transformers 5.24.0, torch 2.14.1, CPython 3.11, one thread.
# Input:      DINOv2's ViT-S/14 of both libraries, each with the same smooth table of 37 x 37 positions (518 px) and with
#             patches that see nothing, so that what enters the first block is the table alone.
# Expected:   one table, as both read the same released weights.
# Seen:       the difference, as a share of the table's own length: 0 at 518 px, 0.02 at 448 px, 0.05 at 224 px, the
#             size that most people give it, and 0.02 at 700 px.
# Why:        both enlarge or shrink the table by a bicubic filter. timm's has `antialias=True`, transformers' has not.
# It matters: the same weights at the same size have other features in the other library, so features, clusters and figures
#             that were computed with one do not fit a model of the other. At the trained size alone they can be compared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import timm
import torch
import transformers

down, across = torch.meshgrid(*[torch.linspace(0, 1, 37)] * 2, indexing="ij")
wave = torch.arange(1, 385) / 40
table = torch.sin(3 * wave * across[..., None] + wave) + torch.cos(3 * wave * down[..., None])
table = torch.cat([torch.zeros(1, 1, 384), table.reshape(1, -1, 384)], dim=1)

about = transformers.Dinov2Config(hidden_size=384, num_hidden_layers=1, num_attention_heads=6, image_size=518, patch_size=14)
theirs = transformers.Dinov2Model(about).eval().embeddings
ours = timm.create_model("vit_small_patch14_dinov2", dynamic_img_size=True, depth=1).eval()
with torch.no_grad():
    for one in (ours.patch_embed.proj, theirs.patch_embeddings.projection):
        one.weight.zero_()
        one.bias.zero_()
    for one in (ours.cls_token, theirs.cls_token):
        one.zero_()
    ours.pos_embed.copy_(table)
    theirs.position_embeddings.copy_(table)
    seen = {}
    for size in (518, 448, 224, 700):
        blank = torch.zeros(1, 3, size, size)
        one, other = ours._pos_embed(ours.patch_embed(blank)), theirs(blank)
        seen[size] = round(((one - other).norm() / one.norm()).item(), 2)
print(f"timm {timm.__version__}, transformers {transformers.__version__}: difference by size {seen}")
if seen != {518: 0.0, 448: 0.02, 224: 0.05, 700: 0.02}:
    raise SystemExit("changed: expected 0 at 518 px, 0.02 at 448, 0.05 at 224, 0.02 at 700")
PYTHON
