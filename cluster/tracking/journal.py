"""The local journal of a run: what it reports is on disk first, and reaches MLflow from there, now or later.

One file ``<folder>/<run>.jsonl`` per run, one JSON object per line: ``seq`` (1, 2, ... without gaps within a run),
``time`` (milliseconds since 1970), ``kind``, the fields of that kind, and a seal over all of it. The folder may lie on
a shared POSIX file system: any one process writes a run (the driver, or a worker on another node), which a lock on the
file sees to; any process reads it.
"""

import contextlib
import fcntl
import getpass
import hashlib
import json
import logging
import math
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from cluster.storage import bucket, paths
from cluster.tracking.redact import redacted
from fss import seals, shards

Status = Literal["FINISHED", "FAILED", "KILLED"]
MAX_PARAM = 6000  # MLflow cuts longer values without a word; here the cut shows
MAX_TAG = 8000
#: The tag of what ended a run; a run that is taken up again loses it.
ERROR = "error"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SYNC_SECONDS = 2.0
_SEND_SECONDS = 30.0  # to a bucket, which takes whole files only; and whenever the file is closed

logger = logging.getLogger(__name__)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as one dict with dotted keys; values as strings, cut to 6000 characters with ``…`` at the end.

    >>> flatten({"train": {"lr": 0.1, "steps": 5}})
    {'train.lr': '0.1', 'train.steps': '5'}
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = shorten(str(value), MAX_PARAM)
    return flat


def shorten(text: str, limit: int) -> str:
    """The text itself, or its beginning and ``…``: at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def read_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events on the complete lines from byte `offset` on, and the byte to go on from.

    A line without its newline is still being written and stays for the next call; a line whose seal is not whole (torn
    by a kill or a power cut, or damaged later) is skipped. A file that does not exist has no events.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    complete = data[: data.rfind(b"\n") + 1]
    events = [event for line in complete.splitlines() if (event := _parse(line)) is not None]
    return events, offset + len(complete)


def catch_up(folder: Path) -> None:
    """Copy the journals of a bucket that have grown elsewhere to `folder`, their place on this machine."""
    if not paths.stored(folder):
        return
    sizes = paths.sizes(folder)
    for path in paths.matching(folder, "*.jsonl"):
        if not path.is_file() or path.stat().st_size < (sizes(path.name) or 0):
            paths.fetch(path)


def _parse(line: bytes) -> dict[str, Any] | None:
    event = seals.unsealed(line)
    return event if event is not None and isinstance(event.get("seq"), int) else None


class InUseError(ValueError):
    """Another process writes this journal."""


class Journal:
    """Append-only record of one run. Trouble with the disk is logged once and never raised: tracking stops no work.

    `run` names the file and the MLflow run: letters, digits, ``. _ -``, at most 100; `parent` is the `run` of the
    pipeline's journal in the same folder. Opening an existing journal continues its sequence (a resumed run), also
    after a kill that left half a line. One process writes a journal at a time; its threads may share the object.
    As a context manager it ends as FINISHED, or as FAILED when an exception leaves the block (which goes on).

    Raises:
        ValueError: for a name that is none.
        InUseError: if another process still writes it after `patience` seconds; nothing was written then.
    """

    def __init__(self, folder: Path | str, run: str, parent: str | None = None, *, patience: float = 0.0) -> None:
        for name in [run] if parent is None else [run, parent]:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"a run's name has 1 to 100 letters, digits, '.', '_' or '-' and starts with a letter or digit; "
                    f"got {name!r}: choose another name"
                )
        self.run, self.parent = run, parent
        self.path = Path(folder).absolute() / f"{run}.jsonl"
        self.sequence = 0
        self._patience = patience
        self._file: int | None = None
        self._points: dict[str, dict[int, float]] = {}  # of each metric, by step
        self._torn = self._troubled = self._started = False
        self._synced = self._sent = 0.0
        self._unsent: list[Path] = []  # images that are not in the bucket yet, as the lines that name them are not
        self._lock = threading.RLock()
        self._append("start")

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the run; nested mappings become dotted keys, see `flatten`."""
        self._append("params", values=flatten(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Words to find the run by; ``mlflow.note.content`` is its description (Markdown)."""
        self._append("tags", values={str(key): shorten(str(value), MAX_TAG) for key, value in values.items()})

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers named ``stage/name``; what is no number is left out and logged.

        A name has one value a step, the first, for a resumed run repeats steps. Without a step a value that is another
        than the last one goes to the step after that. What is not finite becomes the tag ``not_finite.<name>``, for
        MLflow's databases make finite numbers of infinities.
        """
        numbers: dict[str, float] = {}
        for key, value in values.items():
            try:
                numbers[str(key)] = float(value)
            except (TypeError, ValueError):
                logger.warning("run %s: metric %s is no number and is left out: %.80r", self.run, key, value)
        finite = {key: value for key, value in numbers.items() if math.isfinite(value)}
        if len(finite) < len(numbers):
            where = "" if step is None else f" at step {step}"
            self.tags({f"not_finite.{key}": f"{numbers[key]}{where}" for key in numbers if key not in finite})
        if finite:
            self._append("metrics", values=finite, step=step)

    def image(self, key: str, picture: np.ndarray | Image.Image | bytes, step: int | None = None) -> None:
        """A picture: array (H,W) or (H,W,3|4), uint8 or float in [0,1]; a PIL image; or the bytes of a PNG.

        Few fixed keys with growing steps make a film in the MLflow UI.
        """
        name = f"{time.time_ns()}-{re.sub(r'[^A-Za-z0-9_.-]', '_', key)[:100]}.png"
        file = self.path.parent / f"{self.run}.images" / name
        try:
            file.parent.mkdir(exist_ok=True)
            if isinstance(picture, bytes):
                file.write_bytes(picture)
            else:
                _to_image(picture).save(file)
            data = file.read_bytes()
        except (OSError, TypeError, ValueError) as error:
            logger.warning("run %s: image %s is left out: %s", self.run, key, error)
        else:
            digest, place = shards.sha256(data), str(file.relative_to(self.path.parent))
            with self._lock:
                self._unsent.append(file)
            self._append("image", key=key, file=place, sha256=digest, step=step)

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """A file or folder to upload. It is read when it is sent: leave it in place until then."""
        self._append("artifact", path=bucket.address(Path(path).absolute()), folder=folder)

    def register(self, name: str, alias: str | None, path: Path | str, folder: str | None = None) -> None:
        """Make the folder `path`, journaled before as an artifact in `folder`, a version of model `name`.

        The version gets `alias`, which moves to it from an older one. Its `model.json` tells what it holds, so that the
        same model registered twice by one run stays one version.
        """
        digest = hashlib.sha256((Path(path) / "model.json").read_bytes()).hexdigest()
        artifact = "/".join(filter(None, (folder, Path(path).name)))
        self._append("register", name=name, alias=alias, artifact=artifact, digest=digest)

    def text(self, name: str, content: str) -> None:
        """A text to store under the artifact name `name`, such as ``results.md``."""
        self._append("text", name=name, content=content)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """What the run read: `digest` identifies the bytes (36 characters are kept), `context` says what for."""
        self._append("dataset", name=name, digest=digest, source=source, context=context)

    def end(self, status: Status = "FINISHED") -> None:
        """The run is over, as far as this attempt goes; opening the journal again makes it running again."""
        self._append("end", status=status)
        self.close()

    def close(self) -> None:
        """Push everything to the disk and let go of the file; a later event opens it again."""
        with self._lock:
            if self._file is not None:
                descriptor, self._file = self._file, None
                try:
                    os.fsync(descriptor)
                    self._send()
                except OSError as error:
                    self._trouble(error)
                finally:
                    _unlock(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.tags({ERROR: shorten(f"{type(error).__name__}: {error}", 500)})
        self.end("FINISHED" if error is None else "FAILED")

    def _append(self, kind: str, **fields: Any) -> None:
        """Add one line; before the first one of this object, a line that says who writes from here on."""
        with self._lock:
            try:
                if self._file is None:
                    self._connect()
                if not self._started:
                    self._write(
                        "start", {"run": self.run, "parent": self.parent, "journal": uuid.uuid4().hex, **_who()}
                    )
                    self._started = True
                for one in self._points_of(**fields) if kind == "metrics" else [fields]:
                    if kind != "start":
                        self._write(kind, one)
            except OSError as error:
                self._trouble(error)

    def _connect(self) -> None:
        """Open the file, for nobody else to write, and take up the sequence where it leaves off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _locked(self.path, self._patience)
        data = self._taken_up(self._file)
        # A last line without newline may be whole or half: the newline that goes before the next event settles it.
        self._torn = bool(data) and not data.endswith(b"\n")
        events = [event for line in data.splitlines() if (event := _parse(line)) is not None]
        self.sequence = max((event["seq"] for event in events), default=0)
        self._points = {}
        for event in events:
            self._note(event["kind"], event)

    def _taken_up(self, file: int) -> bytes:
        """What is in the file; a bucket's is what somebody wrote elsewhere, unless this one only goes on after it."""
        data = self.path.read_bytes()
        there = next(paths.read_each([self.path])) if paths.stored(self.path) else None
        if there is None or data.startswith(there):
            return data
        os.ftruncate(file, 0)
        os.write(file, there)
        return there

    def _send(self) -> None:
        """Put the file into its bucket, if it has one, after the images that it names."""
        self._sent = time.monotonic()
        paths.send_files(self._unsent)
        self._unsent.clear()
        if paths.stored(self.path):
            paths.send(self.path, self.path.read_bytes())

    def _note(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "metrics":
            for key, value in fields["values"].items():
                self._points.setdefault(key, {})[fields["step"]] = value

    def _points_of(self, values: Mapping[str, float], step: int | None) -> list[dict[str, Any]]:
        """The metrics that the journal has no value of at their step, an event for each step."""
        by_step: dict[int, dict[str, float]] = {}
        for key, value in values.items():
            there = self._points.get(key, {})
            last = max(there, default=-1)
            free = last + 1 if step is None else step
            if free not in there and (step is not None or there.get(last) != value):
                by_step.setdefault(free, {})[key] = value
        return [{"values": one, "step": free} for free, one in by_step.items()]

    def _write(self, kind: str, fields: dict[str, Any]) -> None:
        """One line with one write, so that a kill can tear only the last line."""
        assert self._file is not None
        event = {"seq": self.sequence + 1, "time": time.time_ns() // 1_000_000, "kind": kind, **redacted(fields)}
        plain = json.loads(json.dumps(event, default=str))
        line = (json.dumps(seals.sealed(plain)) + "\n").encode()
        data = b"\n" + line if self._torn else line
        # A full disk may take a part only: the event is lost, and the next one starts on a line of its own.
        self._torn = os.write(self._file, data) < len(data)
        if self._torn:
            raise OSError("the disk took a part of the line only")
        self.sequence += 1
        self._note(kind, fields)
        self._flush()

    def _flush(self) -> None:
        """Now and then force the data out: on a network file system other machines see it only then."""
        now = time.monotonic()
        if self._file is not None and now - self._synced > _SYNC_SECONDS:
            self._synced = now
            os.fsync(self._file)
            if now - self._sent > _SEND_SECONDS:
                self._send()

    def _trouble(self, error: OSError) -> None:
        if not self._troubled:
            self._troubled = True
            logger.warning(
                "run %s: cannot write the journal %s (%s); the work goes on without tracking until it can be written",
                self.run, bucket.address(self.path), error,
            )  # fmt: skip


def _locked(path: Path, patience: float) -> int:
    """A descriptor of `path` that holds its lock; a file system without locks gives one without.

    The lock goes with the process, however that ends; a worker's successor may have to wait for it for a moment.

    Raises:
        InUseError: if another process holds the lock for longer than `patience` seconds.
    """
    descriptor, until = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644), time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise InUseError(
                    f"another run is writing {bucket.address(path)}; wait for it, stop it, or choose another name= or "
                    "root="
                ) from error
            time.sleep(0.1)
        except OSError:
            return descriptor
        else:
            return descriptor


def _unlock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # at once, also if a forked process has the descriptor too
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _to_image(picture: np.ndarray | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    array = np.asarray(picture)
    if array.dtype.kind == "f":
        array = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255)
    return Image.fromarray(array.astype(np.uint8))


def _who() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = str(os.getuid())
    return {"user": user, "program": Path(sys.argv[0]).name, "host": socket.gethostname()}
