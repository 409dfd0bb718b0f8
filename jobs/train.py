"""`fourfold train JOB.toml`: train a job on all ranks that mpirun or srun started."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass

import torch
from mpi4py import MPI

from fourfold.comm.errors import PlacementError
from fourfold.runtime.assembly import create_bags
from fourfold.runtime.blueprint import Blueprint, make_blueprint
from fourfold.runtime.config import Job, load_job, settle
from fourfold.runtime.data.reader import Reader, Split, open_reader
from fourfold.runtime.data.truth import Truth, find_truth
from fourfold.runtime.device import Devices, agree_on_devices, least_free
from fourfold.runtime.embedding import EmbeddingBags
from fourfold.runtime.errors import Error
from fourfold.runtime.introduction import introduce
from fourfold.runtime.matmul import choose_products, keep_freed_memory
from fourfold.runtime.metrics import Metrics
from fourfold.runtime.models import build_model
from fourfold.runtime.population import Census, TablePopulation, take_census
from fourfold.runtime.progress import merge, tier_figures
from fourfold.runtime.roles import Roles, assign_roles
from fourfold.runtime.run import RunFolder
from fourfold.runtime.toml_text import dump
from fourfold.runtime.trace import Trace
from fourfold.runtime.trainer import Trainer
from fourfold.runtime.world import World

HELP = "train a job on all ranks of mpirun or srun"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("job", help="job file (TOML); override any key with --section.key=value")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="write trace/rank-NNNN.json in the run folder: what each thread did, for Perfetto",
    )


def run(args: argparse.Namespace) -> int:
    """Train a job and evaluate it. Collective over the world."""
    comm = MPI.COMM_WORLD
    job = load_job(args.job, args.overrides)
    world = World.from_mpi(comm)
    roles = assign_roles(world.size, job.world)
    devices = agree_on_devices(job.world, world, roles, comm)
    kind = devices.kind(range(world.size))
    job = settle(job, kind, least_free(devices, roles, comm) if kind == "cuda" else None)
    torch.set_num_threads(job.train.threads)
    torch.manual_seed(job.run.seed)
    keep_freed_memory()
    products = choose_products(devices.ranks[comm.rank].kind, tf32=job.train.tf32)
    blueprint = draw_together(job, world, roles, comm)
    model = None
    if comm.rank in roles.dense:
        width = len(blueprint.schema.dense)
        model = build_model(job.model, width, blueprint.tables, blueprint.features)
    with RunFolder.create(job.run, world, comm) as folder:
        folder.write_config(dump(job))
        folder.write_environment(roles, fp32_products=products, devices=devices.why)
        introduce(folder, job, roles, blueprint, devices)
        trace = Trace(comm.rank) if args.trace else None
        bags = make_bags(job, comm, roles, folder, blueprint, devices)
        with ExitStack() as ends:  # on errors too: no thread and no open file is left behind
            if trace is not None:
                ends.callback(trace.save, folder.path / "trace" / f"rank-{comm.rank:04d}.json")
            ends.enter_context(bags.store)
            trainer = Trainer(model, bags, job.train, embedding_lr=job.embedding.lr, trace=trace)
            placement = blueprint.plan.placement
            census = take_census(blueprint.tables, job.reclaim, placement, bags.pad, comm.rank)
            Run(job, comm, roles, folder, trainer, census).train()
        bags.close()
    return 0


def make_bags(
    job: Job,
    comm: MPI.Intracomm,
    roles: Roles,
    folder: RunFolder,
    blueprint: Blueprint,
    devices: Devices,
) -> EmbeddingBags:
    """Make the tables as drawn. Collective."""
    return create_bags(
        blueprint.tables,
        blueprint.features,
        comm,
        roles,
        blueprint.plan.placement,
        embedding=job.embedding,
        storage=job.storage,
        reclaim=job.reclaim,
        stats=blueprint.stats,
        threads=job.train.threads,
        seed=job.run.seed,
        output_dtype=torch.bfloat16 if job.train.autocast else torch.float32,
        folder=folder.path / "rows",
        run=folder.path.name,
        devices=devices,
    )


def draw_together(job: Job, world: World, roles: Roles, comm: MPI.Intracomm) -> Blueprint:
    """Make the blueprint on one rank for all, or raise on all the mistake in the job. Collective.

    On each rank for itself, rounding on another CPU might break a tie otherwise.
    """
    first = roles.dense[0]
    drawn: Blueprint | Exception | None = None
    if comm.rank == first:
        try:
            drawn = make_blueprint(job, world, roles, needs_data=True)
        except (Error, PlacementError) as error:
            drawn = error  # every rank shall hear of it
    drawn = comm.bcast(drawn, root=first)
    if isinstance(drawn, Exception):
        raise drawn
    assert drawn is not None
    return drawn


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
        self,
        job: Job,
        comm: MPI.Intracomm,
        roles: Roles,
        folder: RunFolder,
        trainer: Trainer,
        census: Census | None = None,
    ) -> None:
        self.job = job
        self.comm = comm
        self.roles = roles
        self.folder = folder
        self.trainer = trainer
        self.census = census
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
        with closing(self.trainer.steps(reader, limit=config.steps)) as losses:
            for loss in losses:
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
        store, steps, step = self.trainer.bags.store, window.steps, self.trainer.step_count
        seconds = (time.perf_counter() - window.start) / steps
        stages = {f"{name}_s": s for name, s in self.trainer.take_stage_seconds().items()}
        moved, busy = store.take_traffic()
        held = {"rows": store.pad.rows, **{f"{tier}_bytes": n for tier, n in store.bytes.items()}}
        counted = {} if self.census is None else self.census.take()
        sums = {"loss": window.loss, **held, **moved, **counted}
        merged = merge(self.comm, sums, {**stages, **busy})
        spent = {name: merged[name] / steps for name in (*stages, *busy)}
        tiers = tier_figures(merged, steps) if store.tiered else {}
        shown = {
            "loss": merged["loss"] / steps,
            "samples_per_s": window.samples / steps / seconds,
            "step_s": seconds,
        }
        counts = {name: int(merged[name]) for name in held}
        people: dict[str, dict[str, dict[str, int]]] = {}
        rows: int | str = counts["rows"]
        if self.census is not None:
            tables = self.census.report(merged)
            people["population"] = {name: asdict(table) for name, table in tables.items()}
            rows = sum(tables.values(), TablePopulation()).describe()
        self.folder.metrics.write(step=step, **shown, **spent, **tiers, **counts, **people)
        waited = {"starved_s": spent["starved_s"] + spent["fetch_wait_s"]}
        if store.tiered:
            waited |= {"stalled_s": spent["plan_stalled_s"], "hit_rate": tiers["hit_rate"]}
        self.folder.console.row(
            step=step,
            **shown,
            exchange_s=spent["forward_s"] + spent["backward_s"],
            **waited,
            rows=rows,
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
        if self.census is not None:
            lines.append(self.census.whole.summarize())
        lines.append(f"run folder: {self.folder.path}")
        for line in lines:
            self.folder.console.line(line)
