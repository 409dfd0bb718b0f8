"""Parts of a model run from what was captured. On a CPU functions are run again into the same
memory in place of a graph; test_gpu_training.py has the same with graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mpi4py import MPI
from test_models import Given
from torch import Tensor, nn
from training import NUM_DENSE, Case, train

from fourfold.comm.cut import Cut
from fourfold.runtime import graphs, trainer
from fourfold.runtime.embedding import Embeddings
from fourfold.runtime.errors import ConfigError, Error
from fourfold.runtime.gradients import GradientBuckets
from fourfold.runtime.graphs import Recording, StepGraphs
from fourfold.runtime.models.dcn import DcnV2
from fourfold.runtime.models.dlrm import Dlrm
from fourfold.runtime.roles import Roles

CPU = torch.device("cpu")


class Recorder:
    """Captures without a GPU; counts what is captured and what runs from it."""

    def __init__(self) -> None:
        self.captured: list[Recording] = []
        self.runs = 0

    def __call__(self, function: graphs.Function, static: tuple[Tensor, ...]) -> Recording:
        def forward() -> None:
            self.runs += 1
            with torch.enable_grad():
                state["output"] = function(*static)
            recording.output.copy_(state["output"].detach())

        def backward() -> None:
            new = graphs.gradients(state.pop("output"), static, recording.grad)
            for to, value in zip(recording.grads, new, strict=True):
                assert (to is None) == (value is None)
                if to is not None and value is not None:
                    to.copy_(value)

        state = {"output": function(*static)}
        output = state["output"].detach().clone()
        grad = torch.full_like(output, np.nan)
        grads = graphs.gradients(state.pop("output"), static, torch.zeros_like(output))
        recording = Recording(static, output, grad, grads, forward, backward)
        self.captured.append(recording)
        return recording


class Parts(nn.Module):
    """The exchange between two parts, of which one has a parameter that it does not use."""

    graphed = ("bottom", "head")

    def __init__(self, pooled_width: int, _: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(7)
            self.bottom = nn.Sequential(nn.Linear(NUM_DENSE, 6), nn.ReLU(), nn.Linear(6, 4))
            self.head = Head(4 + pooled_width)

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        bottom = self.bottom(dense)
        logits: Tensor = self.head(bottom, embeddings.after(bottom))
        return logits.squeeze(1)


class Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.first, self.last = nn.Linear(width, 5), nn.Linear(5 + 4, 1)

    def forward(self, bottom: Tensor, joined: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(joined)) * self.fixed
        out: Tensor = self.last(torch.cat([bottom, hidden], 1))
        return out


def dlrm() -> nn.Module:
    return Dlrm(3, 2, 4, (8,), (8,))


def dcn() -> nn.Module:
    return DcnV2(3, 8, 4, (8,), (8,), cross_layers=2, cross_rank=3)


def batch(size: int, seed: int, device: torch.device = CPU) -> tuple[Tensor, Given]:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(size, 8, generator=generator).to(device).requires_grad_()
    return torch.randn(size, 3, generator=generator).to(device), Given(pooled)


def step(
    model: nn.Module, size: int, seed: int, device: torch.device = CPU, *, autocast: bool = False
) -> list[Tensor]:
    """The outputs and all gradients of one batch."""
    dense, given = batch(size, seed, device)
    model.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        output = model(dense, given)
    output.float().square().sum().backward()
    assert given.pooled.grad is not None
    return [output.detach().clone(), given.pooled.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("make", [dlrm, dcn])
def test_a_part_runs_from_its_graph_where_shapes_are_those_captured(
    make: Callable[[], nn.Module],
) -> None:
    model, recorder = make(), Recorder()
    parts = StepGraphs(model, CPU, capture=recorder)
    runs = []
    for number, size in enumerate([5, 7, 7, 7, 3, 7, 5, 5]):
        expected = step(model, size, number)
        before = recorder.runs
        with parts():
            got = step(model, size, number)
        runs.append(recorder.runs - before)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)

    assert runs == [0, 0, 2, 2, 0, 2, 0, 0], "both parts, from the second batch of 7 on"
    assert len(recorder.captured) == 2


def test_gradients_arrive_where_the_buckets_are_and_the_hooks_fire() -> None:
    model, recorder = Parts(8, 0), Recorder()
    parts = StepGraphs(model, CPU, capture=recorder)
    trained = [p for p in model.parameters() if p.requires_grad]
    buckets = GradientBuckets(trained, None, bucket_bytes=64)
    fired: list[Tensor] = []
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(fired.append)
    where = [p.grad.data_ptr() for p in trained if p.grad is not None]
    for number in range(4):
        buckets.zero()
        fired.clear()
        dense, given = batch(6, number)
        with parts():
            model(dense, given).sum().backward()
        used = {id(p) for p in trained} - {id(model.head.unused)}
        assert used <= {id(p) for p in fired}
        assert len(fired) == len({id(p) for p in fired})
    assert recorder.runs == 6
    assert [p.grad.data_ptr() for p in trained if p.grad is not None] == where
    assert model.head.fixed.grad is None
    assert not model.head.unused.grad.any()
    torch.testing.assert_close(model.head.last.bias.grad, torch.tensor([6.0]))


def test_a_graph_sees_parameters_as_they_are() -> None:
    model, recorder = dcn(), Recorder()
    parts = StepGraphs(model, CPU, capture=recorder)
    with parts():
        for number in range(2):
            step(model, 4, number)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-0.5)
    expected = step(model, 4, 9)
    with parts():
        got = step(model, 4, 9)
    assert recorder.runs == 4
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_outside_of_a_step_nothing_runs_from_a_graph() -> None:
    model, recorder = dlrm(), Recorder()
    parts = StepGraphs(model, CPU, capture=recorder)
    with parts():
        for number in range(3):
            step(model, 4, number)
    runs = recorder.runs
    assert not any("forward" in vars(module) for module in model.modules())
    with torch.no_grad():
        dense, given = batch(4, 5)
        model(dense, given)
    assert recorder.runs == runs


def test_a_part_that_is_called_twice_is_an_error_and_no_wrong_gradient() -> None:
    class Twice(nn.Module):
        graphed = ("part",)

        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.part(x), self.part(x + 1)])

    model = Twice()
    with StepGraphs(model, CPU, capture=Recorder())():
        model(torch.ones(2, 3)).sum().backward()
        with pytest.raises(Error, match=r"train\.cuda_graphs: a part .* called again before"):
            model(torch.ones(2, 3)).sum().backward()


@pytest.mark.parametrize(
    ("graphed", "message"),
    [
        (None, r"the model Odd does not say what can be captured: give it `graphed = \(\"name\""),
        ("part", r"the model Odd does not say what can be captured"),
        ((), r"the model Odd does not say what can be captured"),
        (("part", "prat"), r"Odd\.graphed names 'prat', which is no submodule with parameters"),
        (("act",), r"Odd\.graphed names 'act', which is no submodule with parameters to train"),
    ],
)
def test_a_model_that_does_not_say_what_can_be_captured_is_an_error(
    graphed: Any, message: str
) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.act = nn.Linear(3, 3), nn.ReLU()

    model = Odd()
    if graphed is not None:
        model.graphed = graphed
    with pytest.raises(ConfigError, match=r"^train\.cuda_graphs = true, but .*" + message):
        StepGraphs(model, CPU, capture=Recorder())


def test_a_cpu_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"train\.cuda_graphs = true, but .* on the CPU"):
        StepGraphs(dlrm(), CPU)


def test_a_part_that_is_no_function_of_tensors_is_an_error() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, times: int = 1) -> tuple[Tensor, int]:
            return x * self.weight * times, times

    class Odd(nn.Module):
        graphed = ("part",)

        def __init__(self) -> None:
            super().__init__()
            self.part = Pair()

        def forward(self, *inputs: Any) -> Tensor:
            out: Tensor = self.part(*inputs)[0]
            return out

    model, x = Odd(), torch.ones(2, 3)
    with StepGraphs(model, CPU, capture=Recorder())():
        with pytest.raises(Error, match=r"'part' is called with more than tensors"):
            model(x, 2)
        model(x)
        with pytest.raises(Error, match=r"'part' gives tuple; .* must give one tensor"):
            model(x)


def test_what_cannot_be_captured_is_named() -> None:
    def refuse(function: Any, static: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    model = dcn()
    with StepGraphs(model, CPU, capture=refuse)():
        step(model, 4, 0)
        with pytest.raises(Error, match=r"^train\.cuda_graphs: 'bottom' cannot be captured: oper"):
            step(model, 4, 1)


@pytest.mark.mpi
@pytest.mark.parametrize("uneven", [False, True])
def test_a_job_trains_the_same_model(uneven: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where ranks lose their data midway, and evaluate in between."""
    comm = MPI.COMM_WORLD
    ranks = tuple(range(comm.size))
    recorder, cuts = Recorder(), [Cut(ranks=ranks, rows=comm.size)] * 3
    run = partial(
        train,
        comm,
        Case(samples=4 * comm.size),
        Roles(comm.size, ranks, ranks),
        cuts,
        uneven=uneven,
        steps=8,
        evaluate_every=3,
        make_model=Parts,
    )
    eager = run()
    monkeypatch.setattr(trainer, "StepGraphs", partial(StepGraphs, capture=recorder))
    graphed = run(cuda_graphs=True)

    steps = 7 if not uneven or comm.size == 1 else 3
    assert recorder.runs == 2 * steps
    np.testing.assert_array_equal(graphed.losses, eager.losses)
    for mine, theirs in zip(graphed.dense, eager.dense, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name, rows in eager.rows.items():
        np.testing.assert_array_equal(graphed.rows[name], rows)
    assert [m.log_loss for m in graphed.metrics] == [m.log_loss for m in eager.metrics]
