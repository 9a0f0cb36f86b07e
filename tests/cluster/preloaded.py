"""What processes that train import: once, by the server that they are forked from."""

import importlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"  # before DeepSpeed looks for one
for _name in (
    "deepspeed.runtime.zero.muon.muon_optimizer",  # an engine imports it, and with it torch's compiler
    "torch._dynamo",  # an optimiser imports it
    "cluster.pretrain.stage",
    "cluster.train.recipe",
    "cluster.training.loop",
):
    importlib.import_module(_name)
