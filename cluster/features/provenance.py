"""What an exported model says of where it comes from: the backbone's weights, and the corpus without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.engine.manifest import Manifest, read_manifest
from cluster.features.backbone import BackboneSettings


def provenance(chosen: BackboneSettings, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """Facts of a model with this backbone, made of these stages: `backbone_weights`, and `corpus` if they read one.

    Of a corpus they are `fingerprint` and `images`, how many were accepted; that is left out where the shards are gone.
    """
    return {"backbone_weights": chosen.weights, **({"corpus": corpus} if (corpus := _corpus(inputs)) else {})}


def _corpus(inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    if "shard" in inputs:
        return _facts(inputs["shard"])
    for stage in inputs.values():
        if "shard" in stage.inputs:
            fingerprint = stage.inputs["shard"]
            corpus = read_manifest(stage.folder.parents[1] / "shard" / fingerprint / "manifest.json")
            return {"fingerprint": fingerprint} if corpus is None else _facts(corpus)
    return {}


def _facts(corpus: Manifest) -> dict[str, Any]:
    return {"fingerprint": corpus.fingerprint, "images": corpus.counts["accepted"]}
