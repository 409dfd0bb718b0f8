"""`fourfold train JOB.toml`: train a job on all ranks that mpirun or srun started."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass

import torch
from mpi4py import MPI

from fourfold.comm.errors import PlacementError
from fourfold.runtime.assembly import create_bags
from fourfold.runtime.blueprint import Blueprint, make_blueprint
from fourfold.runtime.config import Job, load_job
from fourfold.runtime.data.hashing import describe_hashing
from fourfold.runtime.data.reader import Reader, Split, open_reader
from fourfold.runtime.data.truth import Truth, find_truth
from fourfold.runtime.errors import Error
from fourfold.runtime.matmul import keep_freed_memory, use_onednn
from fourfold.runtime.metrics import Metrics
from fourfold.runtime.models import build_model
from fourfold.runtime.roles import Roles, assign_roles
from fourfold.runtime.run import RunFolder
from fourfold.runtime.toml_text import dump
from fourfold.runtime.trainer import Trainer
from fourfold.runtime.units import show_bytes
from fourfold.runtime.world import World

HELP = "train a job on all ranks of mpirun or srun"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("job", help="job file (TOML); override any key with --section.key=value")


def run(args: argparse.Namespace) -> int:
    """Train a job and evaluate it. Collective over the world."""
    comm = MPI.COMM_WORLD
    job = load_job(args.job, args.overrides)
    world = World.from_mpi(comm)
    roles = assign_roles(world.size, job.world)
    torch.set_num_threads(job.train.threads)
    torch.manual_seed(job.run.seed)
    keep_freed_memory()
    onednn = use_onednn()
    first = roles.dense[0]  # one rank decides: rounding on another CPU might break a tie otherwise
    drawn = draw(job, world, roles) if comm.rank == first else None
    blueprint: Blueprint | Exception = comm.bcast(drawn, root=first)
    if isinstance(blueprint, Exception):
        raise blueprint
    model = None
    if comm.rank in roles.dense:
        width = len(blueprint.schema.dense)
        model = build_model(job.model, width, blueprint.tables, blueprint.features)
    with RunFolder.create(job.run, world, comm) as folder:
        folder.write_config(dump(job))
        folder.write_environment(roles, fp32_products="oneDNN" if onednn else "PyTorch")
        introduce(folder, job, world, roles, blueprint)
        bags = create_bags(
            blueprint.tables,
            blueprint.features,
            comm,
            roles,
            blueprint.plan.placement,
            embedding=job.embedding,
            storage=job.storage,
            stats=blueprint.stats,
            threads=job.train.threads,
            seed=job.run.seed,
            output_dtype=torch.bfloat16 if job.train.autocast else torch.float32,
        )
        trainer = Trainer(model, bags, job.train, embedding_lr=job.embedding.lr)
        Run(job, comm, roles, folder, trainer).train()
        bags.close()
    return 0


def draw(job: Job, world: World, roles: Roles) -> Blueprint | Exception:
    """Make the blueprint, or give the mistake in the job that every rank shall hear of."""
    try:
        return make_blueprint(job, world, roles, needs_data=True)
    except (Error, PlacementError) as error:
        return error


def introduce(
    folder: RunFolder, job: Job, world: World, roles: Roles, blueprint: Blueprint
) -> None:
    """Say what will be trained and where it lies."""
    tables, plan = blueprint.tables, blueprint.plan
    dynamic = sum(table.rows is None for table in tables)
    held = plan.prediction.held[list(roles.embedding)]
    folder.console.title(f"fourfold train: {world}; {roles}")
    for line in (
        f"run folder {folder.path}",
        f"{job.model.kind}: {blueprint.workload.dense_parameters:,} dense parameters,"
        f" {len(tables)} tables"
        f" ({dynamic} dynamic), lookups {blueprint.lookups}",
        f"rows take up to {show_bytes(int(held.max()))} on a rank if tables reach their expected"
        " size",
        *plan.placement.describe(plan.prediction.table_bytes).splitlines(),
    ):
        folder.console.line(line)
    if job.data.hashed:
        folder.console.line(describe_hashing(job.data.hashed))


@dataclass
class Window:
    """What happened since the last line of progress."""

    start: float
    samples: int = 0
    steps: int = 0
    loss: float = 0.0


class Run:
    """The training loop of a job, with its progress, its evaluations and its summary."""

    def __init__(
        self, job: Job, comm: MPI.Intracomm, roles: Roles, folder: RunFolder, trainer: Trainer
    ) -> None:
        self.job = job
        self.comm = comm
        self.roles = roles
        self.folder = folder
        self.trainer = trainer
        self.truth: Truth | None = find_truth(job.data)

    def train(self) -> None:
        """Train to the end and evaluate. Collective."""
        start = time.perf_counter()
        config = self.job.train
        reader = self._open("train")
        window = Window(start)
        samples = 0
        metrics: Metrics | None = None
        evaluated = 0
        for loss in self.trainer.steps(reader, limit=config.steps):
            step = self.trainer.step_count
            window.steps += 1
            window.loss += loss
            window.samples += self.trainer.global_batch
            samples += self.trainer.global_batch
            if step % config.log_every == 0:
                self._log(window)
                window = Window(time.perf_counter())
            if config.eval_every and step % config.eval_every == 0:
                metrics = self._evaluate()
                evaluated = step
                window.start = time.perf_counter()
        seconds = time.perf_counter() - start
        if window.steps:
            self._log(window)
        self._close(reader)
        if self.job.data.has_eval and evaluated != self.trainer.step_count:
            metrics = self._evaluate()
        self._summarize(samples, seconds, metrics)

    def _open(self, split: Split) -> Reader | None:
        if self.comm.rank not in self.roles.dense:
            return None
        return open_reader(
            self.job.data,
            shard=self.roles.dense.index(self.comm.rank),
            shards=len(self.roles.dense),
            batch_size=self.job.train.batch_size,
            split=split,
        )

    def _close(self, reader: Reader | None) -> None:
        """Close a reader and report the malformed rows that it skipped. Collective."""
        skipped = self.comm.allreduce(0 if reader is None else reader.skipped)
        if reader is not None:
            reader.close()
        if skipped:
            self.folder.console.line(f"skipped {skipped:,} malformed rows (data.on_error = skip)")

    def _log(self, window: Window) -> None:
        """Report a stretch of steps. Collective."""
        trainer = self.trainer
        seconds = (time.perf_counter() - window.start) / window.steps
        stages = trainer.take_stage_seconds()
        sums = self.comm.allreduce(
            torch.tensor([window.loss, trainer.bags.pad.rows, trainer.bags.pad.bytes])
            .double()
            .numpy()
        )
        loss, rows, num_bytes = sums.tolist()
        step_s = {f"{name}_s": value / window.steps for name, value in stages.items()}
        self.folder.metrics.write(
            step=trainer.step_count,
            loss=loss / window.steps,
            samples_per_s=window.samples / window.steps / seconds,
            step_s=seconds,
            **step_s,
            rows=int(rows),
            row_bytes=int(num_bytes),
        )
        self.folder.console.row(
            step=trainer.step_count,
            loss=loss / window.steps,
            samples_per_s=window.samples / window.steps / seconds,
            step_s=seconds,
            exchange_s=step_s["forward_s"] + step_s["backward_s"],
            starved_s=step_s["starved_s"],
            rows=int(rows),
        )

    def _evaluate(self) -> Metrics:
        """Score the held-out data and report. Collective."""
        reader = self._open("eval")
        metrics = self.trainer.evaluate(reader, limit=self.job.train.eval_batches)
        self._close(reader)
        figures = asdict(metrics)
        self.folder.metrics.write(
            step=self.trainer.step_count, **{f"eval_{key}": value for key, value in figures.items()}
        )
        best = {} if self.truth is None else {"best_possible_auc": self.truth.drawn_auc}
        self.folder.console.row(
            eval_at_step=self.trainer.step_count,
            auc=metrics.auc,
            **best,
            log_loss=metrics.log_loss,
            normalized_entropy=metrics.normalized_entropy,
            calibration=metrics.calibration,
            samples=metrics.samples,
        )
        return metrics

    def _summarize(self, samples: int, seconds: float, metrics: Metrics | None) -> None:
        lines = [
            f"trained {samples:,} samples in {self.trainer.step_count:,} steps and {seconds:.1f} s:"
            f" {samples / seconds:,.0f} samples/s"
        ]
        if metrics is not None and self.truth is not None:
            lines.append(
                f"AUC {metrics.auc:.4f}, log loss {metrics.log_loss:.4f}; the true probabilities,"
                f" which no model can beat, reach {self.truth.drawn_auc:.4f} and"
                f" {self.truth.drawn_log_loss:.4f}"
            )
        lines.append(f"run folder: {self.folder.path}")
        for line in lines:
            self.folder.console.line(line)
