"""The stages, by name. Each module holds one: its inputs, its settings, its work."""

from cluster.stage import Stage
from cluster.stages import evaluate, kmeans, label, pair, pretrain, quality, render, sample, shard, train

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (render, pretrain, shard, sample, kmeans, label, quality, pair, train, evaluate)
}
