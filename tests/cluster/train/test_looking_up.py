"""A head added to the read-out that looks up regions: those of its own training tasks, without an index stage."""

import dataclasses

import numpy as np
import torch

from cluster.train import stage as train
from fss.heads.parts.tokens import prototypes
from fss.segmenter import Segmenter
from fss.training import study
from tests.cluster import processes
from tests.cluster.train.recipes import varied
from tests.cluster.train.troubled import troubled_job

MODEL = {"name": "panet", "options": {"dim": 16, "residual": "corpus_readout"}}


def test_the_read_out_keeps_the_supports_of_the_tasks_and_answers_with_them(tiny_run):
    recipe = varied(train.job(tiny_run.work("train")).recipe, MODEL)
    module = recipe.module(torch.device("cpu"))
    looked = study.distinct(recipe._load(recipe.train, 0, 40, 0, 1, 4, 1), module.head.studies)
    assert 6 < len(looked) < module.head.studies
    rows = []
    for features, shares in study.Album(looked, recipe.bank):
        tokens = module.head.readout.embed(features)["tokens"]
        rows.append(prototypes(tokens.flatten(2), shares.flatten(2)))
    index = module.head.readout.index.float()
    np.testing.assert_allclose(index[:, : len(looked)], torch.cat(rows).swapaxes(0, 1), atol=1e-3)
    assert not index[:, len(looked) :].any()
    with_them = recipe.validate(module)
    module.head.readout.index.zero_()
    assert recipe.validate(module) != with_them


def test_the_trained_model_is_exported_with_its_regions(tiny_run, tmp_path):
    job = troubled_job(tiny_run, tmp_path)
    job = dataclasses.replace(job, recipe=varied(job.recipe, MODEL))
    processes.train(job, tiny_run.config.cluster, max_failures=0)
    head = Segmenter.load(job.folder / "model", "cpu").head
    expected = job.recipe.module(torch.device("cpu")).head.readout.index
    assert head.readout.filled
    assert torch.equal(head.readout.index, expected)
