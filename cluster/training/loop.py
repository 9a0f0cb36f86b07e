"""The training loop: Ray Train starts the workers, DeepSpeed steps, and the state can always be picked up again.

What is trained is a `Recipe`; the loop knows nothing of few-shot segmentation. Batch n is a pure function of n, so a
run that goes on from a checkpoint, with any number of workers, sees the batches that it would have seen. `train` is one
way to start the workers; all that each of them does is `work`, which knows nothing of Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.config import ClusterConfig
from cluster.engine import compute, publish, room, seen
from cluster.engine.progress import Progress
from cluster.engine.stage import StageError
from cluster.engine.work import bring_once
from cluster.storage import bucket, paths
from cluster.tracking import redact
from cluster.tracking.journal import Journal
from cluster.training import checkpoint, gradients
from cluster.training.averaging import Average
from cluster.training.gradients import Gradients
from cluster.training.health import Health, check_finite, check_moving
from cluster.training.job import Job
from cluster.training.meter import Figures, Meter
from cluster.training.optimizers import learning_rate
from fss import rng

logger = logging.getLogger(__name__)

#: Seconds that a restarted worker waits for the one before to let go of the journal.
_PATIENCE = 60.0


def train(job: Job, cluster: ClusterConfig, max_failures: int = 0) -> None:
    """Run `job` to its end on `cluster.train_workers` workers, restarting them after crashes.

    Raises:
        StageError: what the workers raised, once the restarts are used up.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from ray.train import TrainingFailedError

    from cluster.training import machines

    machines.gather(cluster.train_workers, room.training_worker(cluster))
    before, scratch = room.hosts(), job.folder / ".ray"
    try:
        with seen.left(job.folder) as mark:
            _trainer(job, cluster, mark, scratch, max_failures).fit()
    except TrainingFailedError as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = next((line for line in reversed(told) if "Error: " in line), told[-1])
        lost = "".join(f"; {host} left the cluster meanwhile" for host in room.gone(before))
        raise stopped(job, cause + lost) from error
    finally:
        paths.remove_tree(scratch)


def _trainer(job: Job, cluster: ClusterConfig, mark: seen.Mark, scratch: Path, max_failures: int) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from cluster.training import machines

    each, gpus = dict(room.training_worker(cluster)), cluster.training_gpus() > 0
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "mark": mark},
        torch_config=machines.NetworkConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=cluster.train_workers, use_gpu=gpus, resources_per_worker=each),
        run_config=RunConfig(
            name=f"{job.name}-{uuid.uuid4().hex[:8]}",  # Ray would resume an old name from checkpoints of its own
            **_storage(scratch),
            failure_config=FailureConfig(max_failures=max_failures),
            # of its warnings one comes with a stack whenever the machine is busy
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # version 2 has it
        ),
    )


def _storage(scratch: Path) -> dict[str, Any]:
    """Where Ray Train keeps what it has to know; of a bucket as pyarrow sees it."""
    name = bucket.key(scratch)
    if name is None:
        return {"storage_path": str(scratch)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {"storage_path": name, "storage_filesystem": PyFileSystem(FSSpecHandler(bucket.system()))}


def stopped(job: Job, cause: str) -> StageError:
    """The error of a training whose workers came to grief and are not started again."""
    return StageError(f"{job.name}: {cause}; checkpoints are kept, run again to go on from the last one")


def work(job: Job, rank: int, world: int) -> None:
    """All that worker `rank` of `world` does, in a process of its own whose group, if `world` > 1, is initialised."""
    torch.set_num_threads(job.threads)
    bring_once(job.opened)
    Loop(job, rank, world).run()
    if torch.distributed.is_initialized():  # nobody leaves while rank 0 exports; after an error nobody waits for others
        torch.distributed.barrier()


def _worker(config: Mapping[str, Any]) -> None:
    import ray.train

    redact.install()
    logging.getLogger().setLevel(logging.WARNING)  # or Ray prints a line for every report
    if problem := config["mark"].problem():
        raise StageError(problem)
    compute.note(config["job"].folder, compute.here())
    context = ray.train.get_context()
    work(config["job"], context.get_world_rank(), context.get_world_size())


class Loop:
    """One worker's training loop."""

    def __init__(self, job: Job, rank: int, world: int):
        self.job, self.rank, self.world = job, rank, world
        cuda = torch.cuda.is_available() and bool(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        self.device = torch.device("cuda" if cuda else "cpu")
        if not cuda:
            os.environ["DS_ACCELERATOR"] = "cpu"
        module = job.recipe.module(self.device).to(self.device)
        self.engine = _engine(job, module, job.recipe.optimizer(module), world)
        self.gradients = Gradients(self.engine, job.moments)
        self.base_rates = [group["lr"] for group in self._groups()]
        self.average = Average(self.engine.module, job.ema)
        self.identity = {**job.identity, **job.recipe.identity()}
        self.health = Health(job.folder, job.steps, job.name)
        self.checkpoints = checkpoint.Checkpoints(job.folder / "checkpoints", job.keep_checkpoints)
        self.step = self._resume()

    def run(self) -> None:
        """Train to the last step; rank 0 logs, writes checkpoints and exports.

        Ray Train gets no reports: its controller fetches one every two seconds, and who reports again before waits.
        """
        job = self.job
        with self._journal() as journal:
            if self.step == 0 and job.validate_every:
                self._tell(journal, self._validate(journal))
            progress = (
                Progress(job.name, job.steps, "samples", parts="steps", done=self.step) if self.rank == 0 else None
            )
            meter = Meter(job.batch)
            for batch in meter.timed(job.recipe.batches(self.step, job.steps, self.rank, self.world)):
                meter.add(self._step(batch))
                self.step += 1
                if progress:
                    progress.update(items=job.batch)
                figures = self._figures(meter, progress) if job.due(self.step, job.log_every) else {}
                if job.due(self.step, job.validate_every):
                    figures |= self._validate(journal)
                if figures:
                    self._tell(journal, figures)
                if job.due(self.step, job.checkpoint_every):  # after the candidate, which a resumed run finds
                    self._checkpoint(meter)
            if progress:
                progress.close()
            module = self.engine.module
            with self.average.in_place(module), checkpoint.whole(list(module.parameters())):
                if self.rank == 0:
                    job.recipe.export(module, job.folder)

    def _step(self, batch: tuple[Any, ...]) -> dict[str, torch.Tensor]:
        """One update from a batch, in parts; the figures are the means over the parts."""
        job = self.job
        factor = learning_rate(self.step, job.steps, job.warmup, job.schedule)
        for group, rate in zip(self._groups(), self.base_rates, strict=True):
            group["lr"] = rate * factor
        means: dict[str, torch.Tensor] = {}
        for index in range(job.accumulate):
            torch.manual_seed(rng.mix(job.seed, "step", self.step, self.rank, index))  # dropout as it would have been
            figures = self.engine(*part_of(batch, index, job.accumulate))
            self.engine.backward(figures["loss"])
            (self.gradients if index == job.accumulate - 1 else self.engine).step()  # updates after the last part
            for name, value in figures.items():
                share = value.detach() / job.accumulate
                means[name] = means[name] + share if name in means else share
        job.recipe.after_step(self.engine.module)
        self.average.update(self.engine.module, self.step)
        return means

    def _groups(self) -> list[dict[str, Any]]:
        return self.engine.optimizer.param_groups

    def _figures(self, meter: Meter, progress: Progress | None) -> Figures:
        """Means over the steps since the last log and over all ranks, with the speed."""
        figures = self._means(meter) | self.gradients.figures()
        check_moving(self.job.name, self.step, figures)
        rates = {f"lr/{group['name']}" if "name" in group else "lr": group["lr"] for group in self._groups()}
        eta = {} if progress is None else {"eta_seconds": progress.remaining() or 0.0}
        return {**figures, **rates, **meter.speed(self.device), **eta}

    def _means(self, meter: Meter) -> Figures:
        means = meter.means()
        values = torch.tensor([*means.values()], dtype=torch.float64)
        if self.world > 1:
            torch.distributed.all_reduce(values)
        figures = dict(zip(means, (values / self.world).tolist(), strict=True))
        check_finite(self.job.name, self.step, figures.get("loss", 0.0))
        return figures

    def _tell(self, journal: Journal | None, figures: Figures) -> None:
        if journal:
            journal.metrics({f"{self.job.name}/{k}": v for k, v in figures.items()}, step=self.step)
            for name, words in self.health.check(self.step, figures).items():
                logger.warning("%s: %s", self.job.name, words)
                journal.tags({f"warning.{name}": words})

    def _validate(self, journal: Journal | None) -> Figures:
        """What validation finds with the averaged weights, which rank 0 keeps as a candidate after the first step."""
        job, module = self.job, self.engine.module
        with self.average.in_place(module):  # on all ranks: under ZeRO-3 a forward pass is collective
            figures = job.recipe.validate(module)
            picture = job.recipe.examples(module)
            with checkpoint.whole(list(module.parameters())):
                if self.rank == 0 and self.step:
                    job.recipe.candidate(module, job.folder, self.step, figures)
        if journal and picture:
            publish.write_bytes(job.folder / "examples" / f"step-{self.step:08d}.png", picture)
            journal.image(f"{job.name}/examples", picture, step=self.step)
        return figures

    def _checkpoint(self, meter: Meter) -> None:
        self._means(meter)  # what is broken is not kept: the run would go on from there for ever
        state = checkpoint.collect(self.engine, self.job.moments)
        if self.rank == 0:
            state |= {f"average/{name}": value for name, value in self.average.state().items()}
            self.checkpoints.write(self.step, state, self.identity)

    def _resume(self) -> int:
        newest = checkpoint.newest(self.job.folder / "checkpoints", self.identity)
        if newest is None:
            return 0
        step, state = newest
        checkpoint.restore(self.engine, state, self.job.moments, step)
        prefix = "average/"
        self.average.load({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        logger.info("%s goes on from step %d", self.job.name, step)
        return step

    @contextlib.contextmanager
    def _journal(self) -> Iterator[Journal | None]:
        if self.rank:
            yield None
            return
        with Journal(self.job.tracking, self.job.journal, parent=self.job.parent, patience=_PATIENCE) as journal:
            yield journal


def import_deepspeed() -> Any:
    """DeepSpeed; on CPUs without an operator of inference, which the first engine would compile for a minute."""
    import deepspeed

    if os.environ.get("DS_ACCELERATOR") == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _engine(job: Job, module: nn.Module, optimizer: torch.optim.Optimizer, world: int) -> Any:
    deepspeed = import_deepspeed()
    told = logging.getLogger("DeepSpeed")
    told.setLevel(logging.ERROR)  # while it starts: it warns of every optimiser that it did not write
    settings = {
        "train_batch_size": job.batch,
        "train_micro_batch_size_per_gpu": job.batch // world // job.accumulate,
        "gradient_accumulation_steps": job.accumulate,
        "gradient_clipping": job.clip,
        **gradients.settings(job.precision, job.zero_stage),
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        **job.extra,
    }
    for part in module.modules():
        if getattr(part, "gathered_whole", False):  # ZeRO-3 keeps its parts' weights together
            deepspeed.utils.set_z3_leaf_module(part, True)
    parameters = [p for p in module.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, model_parameters=parameters, config=settings, dist_init_required=False
    )
    told.setLevel(logging.WARNING)
    return engine


def part_of(batch: Any, index: int, number: int) -> Any:
    """Part `index` of `number` equal ones, along the first axis, of each tensor in (named) tuples and mappings."""
    if isinstance(batch, torch.Tensor):
        size = len(batch) // number
        return batch[index * size : (index + 1) * size]
    if isinstance(batch, Mapping):
        return {key: part_of(value, index, number) for key, value in batch.items()}
    parts = (part_of(value, index, number) for value in batch)
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
