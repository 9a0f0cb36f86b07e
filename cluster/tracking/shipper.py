"""Tracking that never stops or slows work: processes write journals, one thread of the driver sends them to MLflow.

    folder = tracking_folder(root, name)
    with Shipper(folder, default_tracking_uri(root), "demo"), Journal(folder, "pipeline") as journal:
        journal.params(config)
        journal.metrics({"train/loss": 0.7}, step=1)

A server that is away costs one warning; what it missed is sent when it is back, by `Shipper.stop` at the end, or later
by ``python -m jobs.sync root=<root> name=<name>``.
"""

import fcntl
import functools
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from cluster.config import TrackingConfig
from cluster.storage import bucket, paths
from cluster.tracking import audit
from cluster.tracking.journal import Journal, catch_up, flatten
from cluster.tracking.redact import redact
from cluster.tracking.sync import Sender, first_event
from cluster.tracking.view import experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Journal", "Shipper", "flatten", "remedy", "tracking_folder", "tracking_place"]

logger = logging.getLogger(__name__)


def tracking_folder(root: Path | str, name: str) -> Path:
    """Where the journals of the pipeline `name` lie."""
    return paths.place(root) / name / "tracking"


def default_tracking_uri(root: Path | str) -> str:
    """The SQLite store ``<root>/mlflow.db``; look at it with ``mlflow server --backend-store-uri <this>``."""
    return f"sqlite:///{paths.place(root)}/mlflow.db"


def run_page(server: str, experiment_id: str, run_id: str) -> str:
    """The page of a run in the MLflow UI of a server's address, which ends in no slash."""
    # Without the last part MLflow 3 shows its pages for language models around it.
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def tracking_place(settings: TrackingConfig, root: Path | str) -> tuple[str, str]:
    """Address and experiment that a run goes to: as its settings say, or else MLflow's own variables, or else a file.

    MLFLOW_TRACKING_URI stands in for an unset `tracking.uri`, MLFLOW_EXPERIMENT_NAME for an experiment that is the
    default one; which of them is used is told once.

    Raises:
        ValueError: if neither says where, and the root is a bucket, which holds no database.
    """
    uri, experiment = settings.uri, settings.experiment
    if uri is None and (uri := os.environ.get("MLFLOW_TRACKING_URI")):
        _honoured("MLFLOW_TRACKING_URI", uri, "tracking.uri")
    if uri is None and settings.enabled and paths.stored(paths.place(root)):
        raise ValueError(
            f"tracking.uri: expected MLflow's address, for a bucket (root={root}) holds no database, got none; set "
            "tracking.uri=http://HOST:5000, or tracking.enabled=false and later run jobs.sync with that address"
        )
    own = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if own and experiment == TrackingConfig().experiment:
        _honoured("MLFLOW_EXPERIMENT_NAME", own, "tracking.experiment")
        experiment = own
    return uri or default_tracking_uri(root), experiment


@functools.lru_cache
def _honoured(variable: str, value: str, key: str) -> None:
    logger.info("tracking: %s=%s from the environment; %s=... would go before it", variable, value, key)


class Shipper:
    """Sends all journals of a folder to MLflow, every few seconds from a daemon thread or by `ship_once`.

    `timeout` bounds one request (seconds); failed ones are tried again on the next round, not within the request.
    MLflow reads both from the environment only, so MLFLOW_HTTP_REQUEST_TIMEOUT and _MAX_RETRIES are set while a round
    lasts and restored after it, unless they are set already; other MLflow calls of this process in that time see them
    too. So it is with the login of an address http://user:password@host, which MLflow therefore cannot print. MLflow's
    usage telemetry stays off unless MLFLOW_DISABLE_TELEMETRY says otherwise. With a SQLite store, a new experiment
    keeps its artifacts in ``mlartifacts`` beside the database. Nothing here raises into the caller.
    """

    def __init__(
        self, folder: Path | str, tracking_uri: str, experiment: str, *, every: float = 5.0, timeout: float = 10.0
    ) -> None:
        self.folder = Path(folder).absolute()
        self.tracking_uri, self._login = _split_login(tracking_uri)
        self.experiment = experiment
        self.every, self.timeout = every, timeout
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._senders: dict[str, Sender] = {}
        self._trouble = ""  # the outage that has been reported
        self._round = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Start sending in the background."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="mlflow-shipper", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> int:
        """Stop the thread, try once more, and say what is left; the number of events not sent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=6 * self.timeout)
            self._thread = None
        self.ship_once()
        left = self.unsent()
        if left:
            logger.warning(
                "tracking: %d events of %d runs are not in MLflow yet; they are safe in %s. Send them later with: "
                "python -m jobs.sync root=%s name=%s",
                sum(left.values()), len(left), *map(bucket.address, (self.folder, self.folder.parent.parent)),
                self.folder.parent.name,
            )  # fmt: skip
        return sum(left.values())

    def ship_once(self) -> bool:
        """Send what the journals hold by now; False if something is in the way (reported once per outage)."""
        with self._round:
            try:
                with _request_settings(self.timeout, self._login), _only_sender(self.folder) as alone:
                    if alone:
                        self._ship()
            except Exception as error:
                self._report(error)
                return False
            if self._trouble and alone:
                self._trouble = ""
                logger.info("tracking: MLflow at %s takes data again", redact(self.tracking_uri))
            return alone

    def unsent(self) -> dict[str, int]:
        """Runs and their events that are not in MLflow, as far as this machine knows."""
        with self._round:
            counts = {}
            for path in sorted(self.folder.glob("*.jsonl")):
                sender = self._senders.get(path.stem)
                if sender is None:  # no round got as far as this journal
                    sender = Sender(None, redact(self.tracking_uri), "", path)  # type: ignore[arg-type]
                counts[path.stem] = sender.pending()
            return {run: count for run, count in counts.items() if count}

    def repair(self) -> dict[str, int]:
        """Compare each journal with what the server holds, and send what it lacks: runs and how much they lacked.

        Raises:
            Exception: whatever MLflow raises if the server cannot be asked.
        """
        with self._round, _request_settings(self.timeout, self._login):
            sent = {}
            for run, sender in self._senders.items():
                if sender.state.run_id and not sender.deleted:
                    sent[run] = audit.repair(sender.client, sender.state.run_id, sender.path)
            return {run: count for run, count in sent.items() if count}

    def run_ids(self) -> dict[str, str]:
        """The MLflow run of each journal, as far as they have one."""
        return {run: sender.state.run_id for run, sender in self._senders.items() if sender.state.run_id}

    def link(self, run: str, server: str | None = None) -> str | None:
        """The page of a run in the MLflow UI, None before it exists; `server` is needed if the store is no server."""
        run_id = self.run_ids().get(run)
        base = (server or redact(self.tracking_uri)).rstrip("/")
        if not run_id or not base.startswith("http"):
            return None
        return run_page(base, self._experiment_id, run_id)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.ship_once()
            self._stopping.wait(self.every)

    def _ship(self) -> None:
        catch_up(self.folder)
        if not any(self.folder.glob("*.jsonl")):
            return
        if self._client is None:
            self._connect()
        assert self._client is not None
        for path in self.folder.glob("*.jsonl"):
            if path.stem not in self._senders and first_event(path):
                self._senders[path.stem] = Sender(self._client, redact(self.tracking_uri), self._experiment_id, path)
        senders = self._senders
        for run in sorted(senders, key=lambda run: (senders[run].parent is not None, run)):  # pipelines first
            pipeline = senders.get(senders[run].parent or "")
            senders[run].send(pipeline.state.run_id if pipeline else None)

    def _connect(self) -> None:
        import mlflow

        logging.getLogger("alembic").setLevel(logging.WARNING)  # dozens of lines on each new SQLite file
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        client = mlflow.MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            place = _artifact_location(self.tracking_uri)
            self._experiment_id = client.create_experiment(self.experiment, place, experiment_tags())
        elif experiment.lifecycle_stage != "active":
            raise ValueError(f"the experiment {self.experiment!r} is deleted in MLflow: restore it or choose another")
        else:
            self._experiment_id = experiment.experiment_id
        self._client = client

    def _report(self, error: Exception) -> None:
        trouble = f"{type(error).__name__}: {error}"
        if not self._trouble:
            logger.warning(
                "tracking: MLflow at %s takes no data. The work goes on; the journals in %s keep all of it. %s (%s)",
                redact(self.tracking_uri), bucket.address(self.folder), remedy(trouble, self.tracking_uri),
                redact(trouble)[:500],
            )  # fmt: skip
        self._trouble = trouble


def remedy(trouble: str, uri: str) -> str:
    """What the user can do about the error text `trouble` of the server at `uri`."""
    address = urlsplit(uri)
    names = f"{address.hostname},{address.netloc.rpartition('@')[2]}"
    known = {
        "Invalid Host header": f"It refuses its own name: start it with `mlflow server --allowed-hosts {names}`.",
        r"\b(401|403)\b|PERMISSION_DENIED|UNAUTHENTICATED": "It wants a login: set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
        "out-of-date database schema": f"Its database is of another MLflow: run `mlflow db upgrade {redact(uri)}`.",
        "filesystem tracking backend": "MLflow no longer writes to folders: use sqlite:///<path>/mlflow.db or "
        "http://<host>:5000.",
        "error code 404": "Something else answers there, perhaps a proxy: check the address and NO_PROXY.",
    }
    server = "Check that `mlflow server` runs there and can be reached from here; " if uri.startswith("http") else ""
    default = f"{server}it is tried again every few seconds."
    return next((advice for pattern, advice in known.items() if re.search(pattern, trouble)), default)


def _artifact_location(uri: str) -> str | None:
    """For a SQLite store the folder beside the database; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlartifacts").as_uri()


def _split_login(uri: str) -> tuple[str, dict[str, str]]:
    """A server's address without its login, and the login as MLflow's variables."""
    address = urlsplit(uri)
    if not uri.startswith("http") or address.username is None:
        return uri, {}
    login = {"MLFLOW_TRACKING_USERNAME": address.username, "MLFLOW_TRACKING_PASSWORD": address.password or ""}
    return (
        address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(),
        {key: unquote(value) for key, value in login.items()},
    )


@contextmanager
def _request_settings(timeout: float, login: Mapping[str, str]) -> Iterator[None]:
    usual = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, round(timeout))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line for each run that ends
    }
    settings = {key: os.environ.get(key, value) for key, value in usual.items()} | dict(login)
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def _only_sender(folder: Path) -> Iterator[bool]:
    """Whether no other process is sending this folder; a file system without locks counts as yes."""
    if not folder.is_dir():
        yield True
        return
    with (folder / ".shipper.lock").open("w") as file:
        alone = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        except OSError:
            pass
        yield alone
