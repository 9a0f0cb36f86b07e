"""Sending a journal to MLflow: one journal is one MLflow run, and no event arrives twice.

What has arrived is remembered twice: in ``<run>.mlflow.json`` beside the journal, and in the run's own tag
`JOURNAL_SENT`, which travels with the data. So a lost answer, a lost file or a second sender costs no duplicates.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.tracking.events import (
    FILES,
    JOURNAL_ID,
    JOURNAL_SENT,
    SCALARS,
    Event,
    is_refusal,
    send_dataset,
    send_file,
    send_scalars,
)
from cluster.tracking.journal import ERROR, read_events
from fss import seals

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH_EVENTS = 500

logger = logging.getLogger(__name__)


class DeletedRunError(Exception):
    """The user deleted the run in MLflow."""


@dataclass
class SentState:
    """How far a journal has been sent to `uri`. `deferred`: file events that failed while the server was well."""

    uri: str = ""
    run_id: str = ""
    acknowledged: int = 0
    deferred: list[Event] = field(default_factory=list)


def load_state(path: Path, uri: str) -> SentState:
    """The state kept at `path`, or a fresh one if there is none, it is damaged, or it speaks of another server."""
    try:
        kept = seals.unsealed(path.read_bytes())
    except OSError:
        kept = None
    return SentState(**kept) if kept is not None and kept["uri"] == uri else SentState(uri)


def save_state(path: Path, state: SentState) -> None:
    """Replace the file at `path` in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(seals.sealed(asdict(state))))
    temporary.replace(path)


class Sender:
    """Sends one journal. `send` raises what the server raises; called again it goes on where it stopped."""

    def __init__(self, client: "MlflowClient", uri: str, experiment_id: str, path: Path) -> None:
        self.client, self.experiment_id, self.path = client, experiment_id, path
        self.state_path = path.with_suffix(".mlflow.json")
        self.state = load_state(self.state_path, uri)
        self.start = first_event(path)
        self.parent: str | None = self.start.get("parent")
        self.deleted = False  # in MLflow, by the user: this process sends nothing more
        self._params: dict[str, str] | None = None  # the run's; None: look at the server before sending
        self._offset = 0
        self._waiting: list[Event] = []

    def pending(self) -> int:
        """Read what the journal has to say by now: the number of events still to send, deferred ones included."""
        events, self._offset = read_events(self.path, self._offset)
        self._waiting += [event for event in events if event["seq"] > self.state.acknowledged]
        return 0 if self.deleted else len(self._waiting) + len(self.state.deferred)

    def send(self, parent_id: str | None) -> None:
        """Send everything there is. `parent_id` is the MLflow run of the pipeline this run belongs to."""
        if not self.pending():
            return
        try:
            if self._params is None:
                self._find_run(parent_id)
            self._send_deferred()
            while self._waiting:
                batch = self._next_batch()
                self._send_batch(batch)
                self._acknowledge(batch[-1]["seq"])
        except DeletedRunError:
            self.deleted = True
            logger.warning("run %s was deleted in MLflow: its journal is no longer sent", self.path.stem)
        except Exception:
            self._params = None  # the data may have arrived and only the answer got lost: look before sending again
            raise

    # The run

    def _find_run(self, parent_id: str | None) -> None:
        """Find or create the MLflow run, and learn from it what has arrived."""
        run = self._known_run()
        if run is None:
            journal = self.start.get("journal", self.path.stem)
            runs = self.client.search_runs([self.experiment_id], f"tags.`{JOURNAL_ID}` = '{journal}'", max_results=1)
            run = runs[0] if runs else self._create_run(journal, parent_id)
        if run.info.lifecycle_stage != "active":
            raise DeletedRunError
        self.state.run_id = run.info.run_id
        self._acknowledge(max(self.state.acknowledged, int(run.data.tags.get(JOURNAL_SENT, 0))))
        self._params = dict(run.data.params)

    def _known_run(self) -> Any:
        from mlflow.exceptions import MlflowException

        if not self.state.run_id:
            return None
        try:
            return self.client.get_run(self.state.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        # Another database answers under the old address: it gets all of the journal.
        self.state = SentState(self.state.uri)
        self._waiting, self._offset = [], 0
        self.pending()
        return None

    def _create_run(self, journal: str, parent_id: str | None) -> Any:
        tags = {
            JOURNAL_ID: journal,
            "mlflow.user": self.start.get("user", ""),
            "mlflow.source.name": self.start.get("program", ""),
            "mlflow.source.type": "JOB",
        }
        # In charts that compare pipelines a bare "train" would not say whose: the folder is <root>/<name>/tracking.
        pipeline = self.path.parent.parent.name
        name = self.path.stem.partition("-")[0]  # what follows is the fingerprint, which its params show
        if name == "pipeline":
            name = pipeline
        if self.parent:
            tags["pipeline"], name = pipeline, f"{name} ({pipeline})"
        if parent_id:
            tags["mlflow.parentRunId"] = parent_id
        return self.client.create_run(self.experiment_id, self.start.get("time"), tags, name)

    # The events

    def _acknowledge(self, sequence: int) -> None:
        self.state.acknowledged = sequence
        self._waiting = [event for event in self._waiting if event["seq"] > sequence]
        save_state(self.state_path, self.state)

    def _next_batch(self) -> list[Event]:
        """The leading events that go as one batch of numbers and words, or else the first event alone."""
        batch = []
        for event in self._waiting[:_BATCH_EVENTS]:
            if event["kind"] not in SCALARS:
                break
            batch.append(event)
        return batch or self._waiting[:1]

    def _send_batch(self, batch: list[Event]) -> None:
        """Send one batch; if it is refused, event by event; an event refused alone is dropped with a warning."""
        try:
            if batch[0]["kind"] in SCALARS:
                send_scalars(self.client, self.state.run_id, batch, self._params or {})
            else:
                self._send_other(batch[0])
        except Exception as error:
            if not is_refusal(error):
                raise
            self._check_run()
            if len(batch) == 1:
                event = batch[0]
                logger.warning("run %s: %s %d is left out: %s", self.path.stem, event["kind"], event["seq"], error)
                return
            for event in batch:
                self._send_batch([event])

    def _check_run(self) -> None:
        if self.client.get_run(self.state.run_id).info.lifecycle_stage != "active":
            raise DeletedRunError

    def _send_other(self, event: Event) -> None:
        run_id, kind = self.state.run_id, event["kind"]
        if kind == "end":
            self.client.set_terminated(run_id, event["status"], end_time=event["time"])
        elif kind == "start" and event["seq"] > 1:
            self.client.update_run(run_id, status="RUNNING")  # taken up again after a kill or an end
            if ERROR in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, ERROR)
        elif kind == "dataset":
            send_dataset(self.client, run_id, event)
        elif kind in FILES and not self._send_file(event):
            # One file must not hold up the numbers. The tag below would call it sent.
            logger.warning("run %s: %s %d will be sent later", self.path.stem, kind, event["seq"])
            self.state.deferred.append(event)
            return
        self.client.set_tag(run_id, JOURNAL_SENT, str(event["seq"]))

    def _send_file(self, event: Event) -> bool:
        """False if the file cannot be sent although the server is well; one that never can be counts as done."""
        if event["kind"] == "register" and any(other["kind"] == "artifact" for other in self.state.deferred):
            return False  # it may be the one that is to be registered
        try:
            send_file(self.client, self.state.run_id, event, self.path.parent)
        except Exception as error:
            self._check_run()  # raises when the server is away: then this file is not to blame
            if not is_refusal(error):
                logger.info("run %s: %s %d: %s", self.path.stem, event["kind"], event["seq"], error)
                return False
            logger.warning("run %s: %s %d is left out: %s", self.path.stem, event["kind"], event["seq"], error)
        return True

    def _send_deferred(self) -> None:
        """One more try for every file put off."""
        for event in list(self.state.deferred):
            if self._send_file(event):
                self.state.deferred.remove(event)
                save_state(self.state_path, self.state)


def first_event(path: Path) -> Event:
    """The event that opens a journal; empty while there is none."""
    return next(iter(read_events(path)[0]), {})
