"""The training loop: Ray Train starts the workers, DeepSpeed steps, and the state can always be picked up again.

What is trained is a `Recipe`; the loop knows nothing of few-shot segmentation. Batch n is a pure function of n, so a
run that goes on from a checkpoint, with any number of workers, sees the batches that it would have seen.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from cluster.config import ClusterConfig
from cluster.progress import Progress
from cluster.stage import StageError
from cluster.tracking.journal import Journal
from cluster.training import checkpoint
from cluster.training.averaging import Average
from cluster.training.meter import Figures, Meter

logger = logging.getLogger(__name__)


class Recipe(Protocol):
    """What the loop needs of the thing that is trained. Picklable; one instance in each worker."""

    def module(self, device: torch.device) -> nn.Module:
        """The trainable module; `module(*batch)` returns scalars, among them `loss`."""

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Its optimiser, with the full learning rate in each group."""

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[tuple[Any, ...]]:
        """This rank's share of batches start..stop-1, ready for the module."""

    def after_step(self, module: nn.Module) -> None:
        """Called after each optimiser step (momentum networks, queues)."""

    def validate(self, module: nn.Module) -> Figures:
        """Label-free validation with the averaged weights, the same on all ranks; may be empty."""

    def candidate(self, module: nn.Module, folder: Path, step: int, figures: Figures) -> None:
        """Keep the averaged weights of `step` and what `validate` found, on rank 0; a step done twice comes twice."""

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the trained result into `folder`, on rank 0, with the averaged weights in place; the last call."""


@dataclass(frozen=True)
class Job:
    """One training run: the recipe and how the loop is to run it.

    `identity` marks whose checkpoints these are; `journal`, child of `parent` in folder `tracking`, takes the metrics.
    """

    name: str
    recipe: Recipe
    folder: Path
    tracking: Path
    journal: str
    parent: str
    identity: Mapping[str, Any]
    steps: int
    batch: int
    warmup: int = 0
    clip: float = 0.0
    ema: float = 0.0
    precision: str = "fp32"
    zero_stage: int = 0
    log_every: int = 20
    validate_every: int = 0
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    moments: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    threads: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)

    def due(self, step: int, every: int) -> bool:
        """Whether what happens every so many steps (0: never), and after the last one, happens after `step`."""
        return every > 0 and (step % every == 0 or step == self.steps)

    def validations(self) -> list[int]:
        """The steps after which the averaged weights are validated and kept as a candidate."""
        return [step for step in range(1, self.steps + 1) if self.due(step, self.validate_every)]


def train(job: Job, cluster: ClusterConfig, max_failures: int = 0) -> None:
    """Run `job` to its end on `cluster.train_workers` workers, restarting them after crashes.

    Raises:
        StageError: what the workers raised, once the restarts are used up.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = cluster.gpus_per_worker > 0
    resources = {"CPU": float(cluster.cpus_per_train_worker), **({"GPU": 1.0} if gpus else {})}
    scratch = job.folder / ".ray"
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=cluster.train_workers, use_gpu=gpus, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"{job.name}-{uuid.uuid4().hex[:8]}",  # Ray would resume an old name from checkpoints of its own
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # version 2 has it
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = next((line for line in reversed(told) if "Error: " in line), told[-1])
        raise StageError(f"{job.name}: {cause}; checkpoints are kept, run again to go on from the last one") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at `step`: linear over `warmup` steps, then a cosine down to zero at `steps`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def warn_of_slow(precision: str, device: torch.device, key: str = "precision") -> None:
    """Say so if `precision` is one that this processor can only emulate."""
    if precision == "bf16" and device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        if not (able.get("amx_bf16") or able.get("avx512_bf16")):
            logger.warning("this processor has no bf16 arithmetic, emulating it is slow; set %s=fp32", key)


def _worker(config: Mapping[str, Any]) -> None:
    import ray.train

    job: Job = config["job"]
    logging.getLogger().setLevel(logging.WARNING)  # or Ray prints a line for every report
    context = ray.train.get_context()
    torch.set_num_threads(job.threads)
    loop = _Loop(job, context.get_world_rank(), context.get_world_size())
    loop.run(ray.train.report)
    if torch.distributed.is_initialized():  # nobody leaves while rank 0 exports; after an error nobody waits for others
        torch.distributed.barrier()


class _Loop:
    """One worker's training loop."""

    def __init__(self, job: Job, rank: int, world: int):
        self.job, self.rank, self.world = job, rank, world
        cuda = torch.cuda.is_available() and bool(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        self.device = torch.device("cuda" if cuda else "cpu")
        if not cuda:
            os.environ["DS_ACCELERATOR"] = "cpu"
        module = job.recipe.module(self.device).to(self.device)
        self.engine = _engine(job, module, job.recipe.optimizer(module), world)
        self.base_rates = [group["lr"] for group in self._groups()]
        self.average = Average(self.engine.module, job.ema)
        self.step = self._resume()

    def run(self, report: Callable[[Figures], None]) -> None:
        """Train to the last step; rank 0 logs, writes checkpoints and exports."""
        job = self.job
        with self._journal() as journal:
            progress = (
                Progress(job.name, job.steps, "samples", parts="steps", done=self.step) if self.rank == 0 else None
            )
            meter = Meter(job.batch)
            for batch in meter.timed(job.recipe.batches(self.step, job.steps, self.rank, self.world)):
                meter.add(self._step(batch))
                self.step += 1
                if progress:
                    progress.update(items=job.batch)
                figures = self._figures(meter) if job.due(self.step, job.log_every) else {}
                if job.due(self.step, job.validate_every):
                    figures |= self._validate()
                if figures:
                    if journal:
                        journal.metrics({f"{job.name}/{k}": v for k, v in figures.items()}, step=self.step)
                    report(figures)
                if job.due(self.step, job.checkpoint_every):  # after the candidate, which a resumed run finds
                    self._checkpoint()
            if progress:
                progress.close()
            with self.average.in_place(self.engine.module):
                if self.rank == 0:
                    job.recipe.export(self.engine.module, job.folder)

    def _step(self, batch: tuple[Any, ...]) -> dict[str, torch.Tensor]:
        factor = learning_rate(self.step, self.job.steps, self.job.warmup)
        for group, rate in zip(self._groups(), self.base_rates, strict=True):
            group["lr"] = rate * factor
        figures = self.engine(*batch)
        self.engine.backward(figures["loss"])
        self.engine.step()
        self.job.recipe.after_step(self.engine.module)
        self.average.update(self.engine.module, self.step)
        return {name: value.detach() for name, value in figures.items()}

    def _groups(self) -> list[dict[str, Any]]:
        return self.engine.optimizer.param_groups

    def _figures(self, meter: Meter) -> Figures:
        """Means over the steps since the last log and over all ranks, with the speed."""
        means = meter.means()
        values = torch.tensor([*means.values()], dtype=torch.float64)
        if self.world > 1:
            torch.distributed.all_reduce(values)
        figures = dict(zip(means, (values / self.world).tolist(), strict=True))
        if not math.isfinite(figures["loss"]):
            raise RuntimeError(
                f"{self.job.name}: the loss is {figures['loss']} at step {self.step}; lower the learning rate, "
                "or train in fp32 (precision=fp32)"
            )
        return {**figures, "lr": self._groups()[0]["lr"], **meter.speed()}

    def _validate(self) -> Figures:
        """What validation finds with the averaged weights, which rank 0 keeps as a candidate."""
        with self.average.in_place(self.engine.module):  # on all ranks: under ZeRO-3 a forward pass is collective
            figures = self.job.recipe.validate(self.engine.module)
            if self.rank == 0:
                self.job.recipe.candidate(self.engine.module, self.job.folder, self.step, figures)
        return figures

    def _checkpoint(self) -> None:
        state = checkpoint.collect(self.engine, self.job.moments)
        if self.rank == 0:
            state |= {f"average/{name}": value for name, value in self.average.state().items()}
            folder = self.job.folder / "checkpoints"
            checkpoint.write(folder, self.step, state, self.job.identity, self.job.keep_checkpoints)

    def _resume(self) -> int:
        found = checkpoint.newest(self.job.folder / "checkpoints", self.job.identity)
        if found is None:
            return 0
        step, state = found
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
        with Journal(self.job.tracking, self.job.journal, parent=self.job.parent) as journal:
            yield journal


def _engine(job: Job, module: nn.Module, optimizer: torch.optim.Optimizer, world: int) -> Any:
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    settings = {
        "train_batch_size": job.batch,
        "train_micro_batch_size_per_gpu": job.batch // world,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": job.clip,
        "zero_optimization": {"stage": job.zero_stage},
        "bf16": {"enabled": job.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        **job.extra,
    }
    parameters = [p for p in module.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, model_parameters=parameters, config=settings, dist_init_required=False
    )
    return engine
