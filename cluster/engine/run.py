"""One run: its configuration, its folder, its workers, and which stages are done."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.config import Config, plain
from cluster.engine import check, origin, places, publish, seen, stage, stale
from cluster.engine.files import DamagedFileError, damaged_in
from cluster.engine.pool import Pool
from cluster.engine.refused import RefusedError
from cluster.engine.seen import Mark
from cluster.engine.session import session
from cluster.engine.settings import plain as as_json
from cluster.engine.stage import Manifest, Stage, StageError
from cluster.engine.work import Log, Work
from cluster.storage import bucket, paths
from cluster.tracking import machine
from cluster.tracking.journal import InUseError, Journal
from cluster.tracking.redact import redacted
from cluster.tracking.shipper import Shipper, tracking_folder, tracking_place
from fss import shards

logger = logging.getLogger(__name__)


class Run:
    """Runs `stages` on demand, each after the stages it reads; a stage that is done is not done again.

    Before any work every stage that will be gone through looks at what it will need (`check`).

    Files that a stage finds damaged are made again, only they and once, and must come out as their manifest promised.

    A context manager: workers start with the first stage that needs them and end with the run.
    """

    def __init__(self, config: Config, stages: Mapping[str, Stage[Any, Any]]):
        self.config = config
        self.folder = places.root(config.root) / config.name
        self._stages = stages
        self._manifests: dict[str, Manifest] = {}
        self._settings: dict[str, Any] = {}
        self._identities: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {}
        self._checked: set[str] = set()
        self._exit = contextlib.ExitStack()
        self._doubted: set[Path] = set()
        self.fresh: list[str] = []
        """Stages that were really run, not found done."""

    def __enter__(self) -> Run:
        self._exit.enter_context(self._tracked())
        return self

    def __exit__(self, *error: Any) -> None:
        self._exit.__exit__(*error)

    @cached_property
    def pool(self) -> Pool:
        """The workers of the shard stages."""
        self.ray()
        mark = self._mark if check.on_a_cluster(self.config.cluster) else None
        return self._pool_exit.enter_context(Pool(self.config.cluster, mark))

    @cached_property
    def _pool_exit(self) -> contextlib.ExitStack:
        return self._exit.enter_context(contextlib.ExitStack())

    def session(self) -> None:
        """Connect to Ray and end the shard stages' workers, so that training gets their CPUs and GPUs."""
        self.ray()
        self.release_pool()

    def release_pool(self) -> None:
        """End the shard stages' workers; they start again when they are asked for."""
        if "pool" in self.__dict__:
            self._pool_exit.close()
            del self.__dict__["pool"]

    def ray(self) -> None:
        """Connect to Ray, once."""
        if "_connected" not in self.__dict__:
            self._exit.enter_context(session(self.config.cluster))
            self._connected = True

    def check(self, *names: str) -> None:
        """Look, before any work, at all that these stages and those they read will need; on a cluster where workers do.

        Raises:
            RefusedError: with every problem found, each with what was expected, what came and the remedy.
        """
        order = [name for name in self._gone_through(names) if name not in self._checked]
        if not order:
            return
        if problems := self._problems([self._stages[name] for name in order]):
            told = ["this cannot work, nothing was started:", *problems] if len(problems) > 1 else problems
            raise RefusedError("\n  ".join(told))
        self._checked |= {*order}

    def _problems(self, stages: Sequence[Stage[Any, Any]]) -> list[str]:
        config, looks, training = self.config, [one.check for one in stages], any(one.starts_training for one in stages)
        if not check.on_a_cluster(config.cluster):
            return [*check.machines(config.cluster, training), *check.problems(config, looks)]
        self.ray()
        return check.on_machines(config, looks, training) or check.unseen(self._mark)

    @cached_property
    def _mark(self) -> Mark:
        """What every machine of a cluster must see in the run's folder."""
        return self._exit.enter_context(seen.left(self.folder))

    def _gone_through(self, names: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(above for name in names for above in self.order(name)))

    def settings(self, name: str) -> Any:
        """The settings of stage `name` under this configuration, made once."""
        if name not in self._settings:
            self._settings[name] = self._stages[name].settings(self.config)
        return self._settings[name]

    def size(self, name: str) -> Mapping[str, int]:
        """How much stage `name` has to do, as far as settings tell; see `Stage.size`."""
        return self._stages[name].size(self.settings)

    def unit(self, name: str) -> str:
        """Which of its counts says how much stage `name` did."""
        return self._stages[name].unit

    def work(self, name: str, folder: Path | None = None) -> Work[Any, Any]:
        """What the work of stage `name` is given, the stages that it reads being done; its own folder is the default.

        Raises:
            StageError: if one of them is not.
        """
        one = self._stages[name]
        inputs = {above: self.manifest(above) for above in one.inputs(self.config)}
        return Work(
            settings=self.settings(name),
            means=one.means(self.config),
            inputs=inputs,
            folder=folder or self.folder / name / self.identity(name)[2],
            log=Log(self.tracking_folder, self.journal_name(name), self.pipeline_name),
            crew=self,
            opened=tuple(inputs[above].folder for above in inputs if self._stages[above].by_path),
        )

    def identity(self, name: str) -> tuple[dict[str, Any], dict[str, str], str]:
        """Settings as JSON has them, input fingerprints and fingerprint of stage `name` under this configuration."""
        if name not in self._identities:
            one = self._stages[name]
            inputs = {above: self.identity(above)[2] for above in one.inputs(self.config)}
            settings = as_json(self.settings(name))
            self._identities[name] = (settings, inputs, stage.fingerprint(one, settings, inputs))
        return self._identities[name]

    def ensure(self, name: str) -> Manifest:
        """The finished stage `name`: found, or made now after the stages that it reads.

        Raises:
            StageError: if it failed, or if other code made it and the key `stale` is `error`.
        """
        if name in self._manifests:
            return self._manifests[name]
        self.check(name)
        one = self._stages[name]
        for above in one.inputs(self.config):
            self.ensure(above)
        settings, inputs, fingerprint = self.identity(name)
        folder = self.folder / name / fingerprint
        manifest = stage.finished(one, folder)
        if manifest is None or self._refused(one, manifest.folder, manifest):
            manifest = self._make(one, folder, settings, inputs)
        else:
            logger.info("%s is done (%s), skipped", name, bucket.address(folder))
        stage.point_to(manifest)
        self._manifests[name] = manifest
        return manifest

    def _make(self, one: Stage[Any, Any], folder: Path, settings: dict[str, Any], inputs: dict[str, str]) -> Manifest:
        """The lock comes before the first byte that is written, into the stage's folder or its journal."""
        with publish.only_writer(folder):
            done = stage.finished(one, folder)  # by another run, just now
            if self._refused(one, folder, done):
                stale.clear(folder)
            elif done is not None:
                return done
            return self._make_alone(one, folder, settings, inputs)

    def doubt(self, name: str, manifest: Manifest) -> str:
        """How the finished stage `name` was made, if not by the code of today."""
        return stale.doubt(self._stages[name], manifest.folder, manifest, {})

    def _refused(self, one: Stage[Any, Any], folder: Path, manifest: Manifest | None) -> bool:
        """Whether what is in the folder is to be made again, see `stale.refused`."""
        inputs = {above: self._manifests[above] for above in one.inputs(self.config)}
        return stale.refused(one, folder, manifest, inputs, self.config.stale)

    def _make_alone(
        self, one: Stage[Any, Any], folder: Path, settings: dict[str, Any], inputs: dict[str, str]
    ) -> Manifest:
        self.fresh.append(one.name)
        with self.journal(one.name) as journal:
            journal.params({**settings, "fingerprint": folder.name})
            journal.tags(origin.origin(one.work.__module__))
            for above in inputs:
                done = self._manifests[above]
                journal.dataset(above, done.fingerprint, bucket.address(done.folder), context="input")
        try:  # the stage writes to the journal itself, perhaps from another machine: one writer at a time
            manifest = self._execute(one, settings, inputs)
        except BaseException:
            with contextlib.suppress(InUseError):  # by a worker on a node that does not answer any more
                self.journal(one.name).end("FAILED")
            raise
        if "pool" in self.__dict__:
            self.pool.rest()
        with self.journal(one.name) as journal:
            journal.metrics({f"{one.name}/seconds": self.seconds(manifest)})
            journal.metrics({f"{one.name}/{key}": float(value) for key, value in manifest.counts.items()})
            journal.artifact(folder / "manifest.json")
        return manifest

    def _execute(self, one: Stage[Any, Any], settings: dict[str, Any], inputs: dict[str, str]) -> Manifest:
        """Do the stage's work; if inputs of it are damaged, make them again, then what they held up."""
        while True:
            try:
                return stage.execute(one, self.work(one.name), settings, inputs)
            except Exception as error:
                damaged = {damage.path: damage for damage in damaged_in(error)}
                if not damaged:
                    raise
                again = self._doubt(damaged, error)
            for name in again:
                if name != one.name:
                    self._manifests.pop(name)
            for name in again:
                if name != one.name:
                    self.ensure(name)

    def _doubt(self, damaged: Mapping[Path, DamagedFileError], error: Exception) -> list[str]:
        """Delete the damaged files, each once only, and return the stages that have to make them again.

        A stage redoes the units whose files are not there; its work goes on with what it has already done.
        """
        stages = {}
        for path, damage in damaged.items():
            if path in self._doubted:
                raise StageError(f"{damage}; it was made again once already: check the disk and the memory") from error
            if damage.folder.parent.parent != self.folder or damage.folder.parent.name not in self._stages:
                raise error
            self._doubted.add(path)
            stages[damage.folder.parent.name] = True
            if damage.still():
                logger.warning("%s; deleted, its stage makes it again", damage)
                paths.remove(path)
            else:
                logger.warning("%s; but now it is whole, so it is read again", damage)
        return [name for name in self._stages if name in stages]

    def order(self, name: str) -> list[str]:
        """Stage `name` and all that it reads, directly or not, each after its own inputs."""
        order: dict[str, None] = {}
        for above in self._stages[name].inputs(self.config):
            order |= dict.fromkeys(self.order(above))
        return [*order, name]

    def manifest(self, name: str) -> Manifest:
        """The manifest of a stage that this run has been through.

        Raises:
            StageError: if it has not.
        """
        if name not in self._manifests:
            raise StageError(
                f"stage {name} was not run; run jobs.pipeline, or a later stage, with the same arguments first"
            )
        return self._manifests[name]

    @staticmethod
    def seconds(manifest: Manifest) -> float:
        """How long the stage took when it was made, 0 if that is not known any more."""
        timing = publish.read_sealed(manifest.folder / "timing.json")
        return 0.0 if timing is None else float(timing["seconds"])

    @property
    def tracking_folder(self) -> Path:
        """Where the journals lie."""
        return tracking_folder(self.config.root, self.config.name)

    def journal(self, name: str) -> Journal:
        """The journal of stage `name`, child of the pipeline's."""
        return Journal(self.tracking_folder, self.journal_name(name), parent=self.pipeline_name)

    def journal_name(self, name: str) -> str:
        """Each configuration of a stage is a run of its own in MLflow; resuming one continues it."""
        return f"{name}-{self.identity(name)[2][:8]}"

    @cached_property
    def pipeline_name(self) -> str:
        """The name of the pipeline's journal: one for each configuration, wherever and on how many machines it runs."""
        machines = ("cluster", "tracking", "plan", "out", "root")
        chosen = {key: value for key, value in redacted(plain(self.config)).items() if key not in machines}
        return f"pipeline-{shards.sha256(shards.dumps(chosen))[:8]}"

    @contextlib.contextmanager
    def _tracked(self) -> Iterator[None]:
        settings = self.config.tracking
        self.shipper = shipper = Shipper(self.tracking_folder, *tracking_place(settings, self.config.root))
        pipeline = Journal(self.tracking_folder, self.pipeline_name)
        with shipper if settings.enabled else contextlib.nullcontext(), pipeline as journal:
            journal.params(plain(self.config))
            journal.tags({"run": self.config.name, "folder": bucket.address(self.folder)})
            self.pipeline_journal = journal
            with machine.watched(journal) if settings.enabled else contextlib.nullcontext():
                yield
