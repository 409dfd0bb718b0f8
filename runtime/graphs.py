"""Parts of a dense model run from CUDA graphs: one launch each way in place of many.

A model says which of its submodules may be run so, by name:

    class Clicks(torch.nn.Module):
        graphed = ("bottom", "top")

Each of them must be a function of tensors and of its own parameters: it is called with tensors
alone, once a step; it gives one tensor, which nobody changes in place; it draws no random numbers,
changes no buffer, and neither waits for the device nor decides by what is there. None lies inside
another. What comes between them, as the exchange of embeddings, runs as ever.

A part is captured when inputs have the same shapes for the second time in succession. Inputs of
other shapes (the last batch of an epoch) run without the graph, with the same parameters.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from fourfold.runtime.errors import ConfigError, Error

Function = Callable[..., Tensor]
"""Maps tensors to a tensor."""
Capture = Callable[[Function, tuple[Tensor, ...]], Function]
"""Makes from a function, and inputs as those to come, one that does the same."""

capturing = threading.Lock()
"""Held while something is captured: torch must not be asked for its unused memory then."""

_WARM_UP = 3  # runs in which libraries make what they make once


class StepGraphs:
    """The parts of a model that run from graphs in steps of training.

    model: on `device`. capture: for tests. Raises ConfigError, which names `train.cuda_graphs`, for
    a device that has no graphs or a model that does not say what can be captured.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, *, capture: Capture | None = None
    ) -> None:
        if capture is None and device.type != "cuda":
            raise ConfigError(
                "train.cuda_graphs = true, but a dense model here is on the CPU, which has no CUDA"
                " graphs: leave it out, or train on GPUs (world.device)"
            )
        self._parts = [Part(name, module, capture or record) for name, module in _graphed(model)]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within this, parts run from their graphs. Not for evaluation."""
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(_forward(part.module, part))
            yield


class Part:
    """A module that runs from a graph where its inputs have the shapes that were captured."""

    def __init__(self, name: str, module: nn.Module, capture: Capture) -> None:
        self.module = module
        self._name = name
        self._capture = capture
        self._eager: Function = module.forward
        self._names, self._parameters = zip(*module.named_parameters(), strict=True)
        self._form: tuple[Any, ...] | None = None
        self._graph: Function | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Stand for the module's `forward`."""
        if not all(isinstance(x, Tensor) for x in inputs):
            raise Error(
                f"train.cuda_graphs: {self._name!r} is called with more than tensors, which a part"
                " in the model's `graphed` must not be"
            )
        form = tuple((x.shape, x.dtype, x.requires_grad) for x in inputs)
        if self._graph is None and form == self._form:
            self._graph = self._captured(inputs)
        elif self._graph is None:
            self._form = form
        if self._graph is None or form != self._form:
            return self._eager(*inputs)
        return self._graph(*inputs, *self._parameters)

    def _captured(self, inputs: tuple[Tensor, ...]) -> Function:
        # Parameters come as inputs that share their memory. If they came as themselves, autograd
        # would add up their gradients on the stream of the capture from then on.
        inside = [x.detach().clone() for x in inputs] + [p.detach() for p in self._parameters]
        for x, like in zip(inside, (*inputs, *self._parameters), strict=True):
            x.requires_grad_(like.requires_grad)
        try:
            return self._capture(self._pure, tuple(inside))
        except RuntimeError as error:
            raise Error(
                f"train.cuda_graphs: {self._name!r} cannot be captured: {error}; leave it out of"
                " the model's `graphed` if it is not a function of tensors alone"
            ) from error

    def _pure(self, *tensors: Tensor) -> Tensor:
        """Run the module on inputs and, behind them, parameters."""
        count = len(tensors) - len(self._names)
        parameters = dict(zip(self._names, tensors[count:], strict=True))
        with _forward(self.module, self._eager):
            output = functional_call(self.module, parameters, tensors[:count])
        if not isinstance(output, Tensor):
            raise Error(
                f"train.cuda_graphs: {self._name!r} gives {type(output).__name__}; what the model's"
                " `graphed` names must give one tensor"
            )
        return output


@dataclass
class Recording:
    """A function of tensors and its gradient, to be done again with what lies in this memory."""

    static: tuple[Tensor, ...]
    """What `forward` reads; tensors that lie elsewhere are copied there first."""
    output: Tensor
    """What it writes."""
    grad: Tensor
    """Gradient of the output: what `backward` reads, beside what `forward` left."""
    grads: tuple[Tensor | None, ...]
    """What it writes: a gradient for every tensor of `static`, None if that gets none."""
    forward: Callable[[], None]
    backward: Callable[[], None]
    turn: int = 0
    """Calls so far."""

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Do the same. The result holds until the next call; so does the way back from it."""
        output: Tensor = _Again.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return output


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: Recording, *tensors: Tensor) -> Tensor:
        for inside, given in zip(recording.static, tensors, strict=True):
            _bring(given, inside)
        recording.forward()
        recording.turn += 1
        ctx.recording, ctx.turn = recording, recording.turn
        return recording.output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        recording: Recording = ctx.recording
        if ctx.turn != recording.turn:
            raise Error(
                "train.cuda_graphs: a part of the model was called again before the backward of its"
                " last call, which is lost with it: leave it out of the model's `graphed`"
            )
        _bring(grad, recording.grad)
        recording.backward()
        return None, *(None if g is None else g.detach() for g in recording.grads)


def record(function: Function, static: tuple[Tensor, ...]) -> Recording:
    """Capture a function and its gradient as two graphs of the current device.

    As torch.cuda.make_graphed_callables, which cannot be used here: while that captures, no other
    thread may take memory or ask an event, and threads of this process do.
    """
    graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    # torch deals out few streams again and again, but those of high priority to nobody else here:
    # what another thread enqueued on this one would be captured, too.
    pool, side = torch.cuda.graph_pool_handle(), torch.cuda.Stream(priority=-1)
    side.wait_stream(torch.cuda.current_stream())
    with capturing, _no_collection(), _no_cast_twice():
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                output = function(*static)
                gradients(output, static, torch.zeros_like(output))
            del output
        with _capture(graphs[0], pool, side):
            output = function(*static)
        grad = torch.empty_like(output)
        with _capture(graphs[1], pool, side):
            grads = gradients(output, static, grad)
    return Recording(static, output.detach(), grad, grads, graphs[0].replay, graphs[1].replay)


def gradients(output: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor | None, ...]:
    """Give the gradients of all inputs, None for those that want or get none."""
    wanted = [x for x in inputs if x.requires_grad]
    with (  # as the backward of a step runs
        torch.autocast(output.device.type, enabled=False),
        torch.autograd.set_multithreading_enabled(False),
    ):
        found = iter(torch.autograd.grad(output, wanted, grad, allow_unused=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)


def _bring(given: Tensor, inside: Tensor) -> None:
    if given.data_ptr() != inside.data_ptr():  # parameters are there
        inside.detach().copy_(given)


def _graphed(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the parts that a model names, those with parameters to train."""
    names = getattr(model, "graphed", None)
    kind = type(model).__name__
    if not isinstance(names, tuple) or not names:
        raise ConfigError(
            f"train.cuda_graphs = true, but the model {kind} does not say what can be captured:"
            ' give it `graphed = ("name", ...)` with the names of submodules that are functions of'
            " tensors (fourfold.runtime.graphs tells what that means), or leave the key out"
        )
    modules = dict(model.named_modules())
    for name in names:
        module = modules.get(name)
        if module is None or not any(p.requires_grad for p in module.parameters()):
            raise ConfigError(
                f"train.cuda_graphs = true, but {kind}.graphed names {name!r}, which is no"
                " submodule with parameters to train"
            )
    return [(name, modules[name]) for name in names]


@contextmanager
def _forward(module: nn.Module, function: Function) -> Iterator[None]:
    """Within this, the module runs the function."""
    before = module.__dict__.get("forward")
    module.forward = function
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


@contextmanager
def _capture(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    # Other threads go on: they plan, copy and take memory meanwhile, on streams of their own.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        yield


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing is collected on this thread: freeing memory of the device would end the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _no_cast_twice() -> Iterator[None]:
    """Autocast as it is, but no cast of a parameter outlives its use: a graph must cast anew."""
    with torch.autocast(
        "cuda",
        torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    ):
        yield
