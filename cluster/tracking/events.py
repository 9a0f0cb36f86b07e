"""What one journal event is in MLflow's terms: keys, batches and calls within MLflow's limits."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image, UnidentifiedImageError

from cluster.storage import paths
from cluster.tracking.journal import shorten
from fss import shards

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
Event = dict[str, Any]
SCALARS = ("metrics", "params", "tags")
FILES = ("image", "artifact", "text", "register")
#: Tags of our own that no user needs to see: MLflow's pages leave out what begins so.
JOURNAL_ID, JOURNAL_SENT, _DIGEST = (f"mlflow.journal.{name}" for name in ("id", "sent", "digest"))
#: What a training is judged by, and a section for it that comes before others in the alphabet, as MLflow shows them.
_CURVES = re.compile(r"(?:pre)?train/((?:holdout_)?(?:loss|iou))")


class UnsendableError(Exception):
    """This can never be sent; trying again is pointless."""


def is_refusal(error: Exception) -> bool:
    """Whether the server understood and said no (True), or is away or in trouble (False)."""
    code = getattr(error, "error_code", None)
    return isinstance(error, UnsendableError) or code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def clean_key(key: str, flags: int = 0) -> str:
    """`key` with what MLflow refuses in names replaced by ``_``: letters, digits and ``_ - . / space`` stay."""
    clean = re.sub(r"[^\w\-./ ]", "_", key, flags=flags)
    return "/".join(part for part in clean.split("/") if part not in {"", ".", ".."})[:250] or "_"


def metric_key(name: str) -> str:
    """What MLflow calls the metric `name`: charts begin with the curves that a training is judged by.

    >>> metric_key("train/holdout_iou"), metric_key("train/grad_norm"), metric_key("result/holdout_iou")
    ('curves/holdout_iou', 'train/grad_norm', 'result/holdout_iou')
    """
    curve = _CURVES.fullmatch(name)
    return f"curves/{curve[1]}" if curve else clean_key(name)


def slices(items: Sequence[T], count: int, size: Callable[[T], int], limit: int = 100_000) -> Iterator[list[T]]:
    """Cut `items` into runs of at most `count` items and, but for a single larger item, `limit` total size.

    MLflow takes 1 MB a request, and one character can become six bytes of JSON: hence the default limit.
    """
    part: list[T] = []
    total = 0
    for item in items:
        if part and (len(part) == count or total + size(item) > limit):
            yield part
            part, total = [], 0
        part.append(item)
        total += size(item)
    if part:
        yield part


def send_scalars(client: "MlflowClient", run_id: str, events: Sequence[Event], known: dict[str, str]) -> None:
    """Send metrics, params and tags of several events, and the last one's number as the tag `JOURNAL_SENT`.

    `known` are the run's params and is brought up to date. A param that comes again with another value, which MLflow
    refuses, becomes the tag ``param_changed.<key>``.
    """
    from mlflow.entities import Metric, Param, RunTag

    metrics: list[tuple[str, float, int, int]] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for event in events:
        named = metric_key if event["kind"] == "metrics" else clean_key
        values = {named(key): value for key, value in event["values"].items()}
        if event["kind"] == "metrics":
            metrics += [(key, value, event["time"], event["step"]) for key, value in values.items()]
        elif event["kind"] == "tags":
            tags |= values
        else:
            before = known | params
            params |= {key: value for key, value in values.items() if key not in before}
            changed = {key: value for key, value in values.items() if before.get(key, value) != value}
            tags |= {f"param_changed.{key}"[:250]: value for key, value in changed.items()}
    tags.pop(JOURNAL_SENT, None)
    tags[JOURNAL_SENT] = str(events[-1]["seq"])  # goes last: what it says has arrived
    for numbers in slices(metrics, 900, lambda item: len(item[0]) + 80):
        client.log_batch(run_id, metrics=[Metric(*item) for item in numbers])
    for words in slices(list(params.items()), 100, _length):
        client.log_batch(run_id, params=[Param(*item) for item in words])
    for words in slices(list(tags.items()), 100, _length):
        client.log_batch(run_id, tags=[RunTag(*item) for item in words])
    known |= params


def _length(item: tuple[str, str]) -> int:
    return len(item[0]) + len(item[1])


def send_dataset(client: "MlflowClient", run_id: str, event: Event) -> None:
    """Attach what the run read; of the digest MLflow keeps 36 characters."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": event["source"]})
    dataset = Dataset(shorten(event["name"], 500), event["digest"][:36], "local", source)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", event["context"])])])


def send_file(client: "MlflowClient", run_id: str, event: Event, folder: Path) -> None:
    """Upload a text, a picture (kept under `folder`, the journal's) or an artifact, or register one.

    Raises UnsendableError if the file is gone or the picture cannot be read.
    """
    if event["kind"] == "text":
        client.log_text(run_id, event["content"], event["name"])
        return
    if event["kind"] == "register":
        register(client, run_id, event)
        return
    path = paths.bring(folder / event["file"] if event["kind"] == "image" else paths.place(event["path"]))
    if not path.exists():
        raise UnsendableError(f"{path} is gone")
    if event["kind"] == "image":
        if shards.sha256(path.read_bytes()) != event["sha256"]:
            raise UnsendableError(f"{path} is damaged")
        key = clean_key(event["key"], re.ASCII)
        client.log_image(run_id, _read(path), key=key, step=event["step"] or 0, timestamp=event["time"])
    elif path.is_dir():
        client.log_artifacts(run_id, str(path), "/".join(filter(None, (event["folder"], path.name))))
    else:
        client.log_artifact(run_id, str(path), event["folder"])


def register(client: "MlflowClient", run_id: str, event: Event) -> None:
    """Make an uploaded folder a version in the model registry, and give it its alias; done again, it changes nothing.

    Raises:
        UnsendableError: if the folder never arrived.
    """
    name, run = event["name"], client.get_run(run_id)
    version = _version(client, run_id, event)
    if version is None:
        if not client.list_artifacts(run_id, event["artifact"]):
            raise UnsendableError(f"artifact {event['artifact']} is not there")
        _make_name(client, name)
        tags = {_DIGEST: event["digest"], **{k: run.data.tags[k] for k in ("pipeline",) if k in run.data.tags}}
        source = f"{run.info.artifact_uri}/{event['artifact']}"
        version = client.create_model_version(name, source, run_id, tags).version
    if event["alias"]:
        client.set_registered_model_alias(name, event["alias"], str(version))


def _version(client: "MlflowClient", run_id: str, event: Event) -> str | None:
    """The version that an earlier attempt made; its answer may have been lost."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    same = [v for v in versions if v.name == event["name"] and v.tags.get(_DIGEST) == event["digest"]]
    return str(same[0].version) if same else None


def _make_name(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.copy()
    except (UnidentifiedImageError, OSError) as error:
        raise UnsendableError(f"{path} is no readable PNG: {error}") from error
