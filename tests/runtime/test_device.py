"""Which device every rank gets, from what all ranks have found: on clusters that are imagined."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fourfold.runtime.device import RankDevice, check_devices, decide
from fourfold.runtime.driver import Driver, Gpu
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.gpu import GpuFacts
from fourfold.runtime.roles import RolesConfig, assign_roles
from fourfold.runtime.world import World


def gpu(uuid: str, capability: tuple[int, int] = (9, 0)) -> Gpu:
    return Gpu("H100", 80 * 2**30, capability, uuid)


def facts(*gpus: Gpu, **more: object) -> GpuFacts:
    """A process that has all it needs and sees these GPUs."""
    found = GpuFacts(
        Driver((13, 0), gpus), torch_cuda="13.0", cupy="14.2.0", nvrtc="13.0", nccl="2.28.3"
    )
    return replace(found, **more)


def nodes(ranks: int, ranks_per_node: int, gpus_per_node: int) -> tuple[World, list[GpuFacts]]:
    """Nodes whose ranks all see all GPUs of their node."""
    world = World.imagine(ranks, ranks_per_node)
    found = [facts(*(gpu(f"{node}-{i}") for i in range(gpus_per_node))) for node in world.nodes]
    return world, found


def chosen(config: RolesConfig, world: World, found: list[GpuFacts]) -> list[object]:
    """The ordinal of every rank, "cpu" for those without."""
    made = decide(config, world, assign_roles(world.size, config), found)
    return [d.ordinal if d.kind == "cuda" else "cpu" for d in made.ranks]


CUDA = RolesConfig(device="cuda")
AUTO = RolesConfig()


def test_ranks_of_a_node_take_its_gpus_in_turn() -> None:
    world, found = nodes(8, 4, 4)

    assert chosen(CUDA, world, found) == [0, 1, 2, 3, 0, 1, 2, 3]
    assert chosen(AUTO, world, found) == [0, 1, 2, 3, 0, 1, 2, 3]
    assert chosen(RolesConfig(device="cpu"), world, []) == ["cpu"] * 8


def test_a_node_may_have_more_gpus_than_ranks() -> None:
    assert chosen(CUDA, *nodes(4, 2, 8)) == [0, 1, 0, 1]


def test_a_rank_takes_the_gpu_that_the_launcher_gave_it_alone() -> None:
    """As `srun --gpus-per-task=1` does: each process sees one GPU, and each another."""
    found = [facts(gpu(f"{rank}")) for rank in range(4)]

    assert chosen(CUDA, World.imagine(4, 4), found) == [0, 0, 0, 0]


def test_more_ranks_than_gpus_is_an_error_with_the_numbers() -> None:
    world, found = nodes(6, 3, 2)
    with pytest.raises(ConfigError) as raised:
        chosen(CUDA, world, found)

    text = str(raised.value)
    assert "ranks 0,2: no GPU of its own (node0 has 3 ranks that use GPUs, and 2 GPUs)" in text
    assert "ranks 3,5: no GPU of its own (node1 has 3 ranks" in text
    assert "world.share_gpus = true" in text


def test_ranks_may_be_allowed_to_share_gpus() -> None:
    world, found = nodes(6, 3, 2)
    config = RolesConfig(device="cuda", share_gpus=True)
    made = decide(config, world, assign_roles(6, config), found)

    assert made.ranks[:3] == (
        RankDevice("cuda", 0, sharers=2), RankDevice("cuda", 1), RankDevice("cuda", 0, sharers=2)
    )  # fmt: skip
    assert not made.nccl  # it refuses a GPU that two ranks have


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"driver": Driver(problem="libcuda.so.1: no such file")}, "no working NVIDIA driver (lib"),
        ({"driver": Driver((13, 0))}, "no GPU (the driver sees none): ask the launcher"),
        ({"driver": Driver((13, 0)), "visible": ""}, "no GPU (CUDA_VISIBLE_DEVICES='' leaves none"),
        ({"torch_cuda": None}, "no CUDA build of torch (this one is for the CPU): `pip install"),
        ({"torch_cuda": "14.1"}, "no driver for CUDA 14.1, which torch was built for (this one"),
        ({"cupy": None}, 'no CuPy, which loads the kernels: `pip install "fourfold[cuda13'),
        ({"nvrtc": None}, "no NVRTC, which compiles the kernels: `pip install"),
        ({"nvrtc": "14.0"}, "no driver for CUDA 14.0, whose NVRTC CuPy finds"),
        ({"nccl": None}, "no NCCL, which carries rows between GPUs"),
    ],
)
def test_what_one_rank_lacks_is_named_on_all(change: dict[str, object], message: str) -> None:
    world, found = nodes(4, 4, 4)
    found[2] = replace(found[2], **change)
    with pytest.raises(ConfigError) as raised:
        chosen(CUDA, world, found)
    made = decide(AUTO, world, assign_roles(4, AUTO), found)

    assert f"rank 2: {message}" in str(raised.value)
    assert str(raised.value).count("\n") == 1  # nothing else is missing
    assert made.kind(range(4)) == "cpu"
    assert made.why.startswith('all ranks on the CPU (world.device = "auto"): rank 2: no ')


def test_all_that_is_missing_is_named_at_once() -> None:
    nothing = [GpuFacts(Driver(problem="not there"))] * 4
    with pytest.raises(ConfigError) as raised:
        chosen(CUDA, World.imagine(4), nothing)

    lines = str(raised.value).splitlines()
    assert 'world.device = "cuda", but not every rank has a GPU that it can use' in lines[0]
    assert [line.split(": no ")[0] for line in lines[1:]] == ["  ranks 0-3"] * 4
    for line, name in zip(lines[1:], ("driver", "torch", "CuPy", "NCCL"), strict=True):
        assert name in line.split(": ")[1]


def test_an_old_gpu_is_refused() -> None:
    found = [facts(gpu("0")), facts(gpu("1", (7, 5)))]
    with pytest.raises(ConfigError, match=r"rank 1: no GPU of compute capability 8\.0 .*has 7\.5"):
        chosen(CUDA, World.imagine(2), found)
    assert chosen(AUTO, World.imagine(2), found) == ["cpu", "cpu"]
    # The second GPU of a node is not looked at by the rank that has the first.
    assert chosen(CUDA, World.imagine(1), [facts(gpu("0"), gpu("1", (7, 5)))]) == [0]


def test_an_old_driver_is_served_by_an_older_cupy() -> None:
    found = [facts(gpu("0"), driver=Driver((12, 8), (gpu("0"),)), torch_cuda="12.8", cupy=None)]
    with pytest.raises(ConfigError, match=r'`pip install "fourfold\[cuda12\]"`'):
        chosen(CUDA, World.imagine(1), found)


def test_one_rank_needs_no_nccl() -> None:
    world, found = nodes(1, 1, 1)
    found = [replace(found[0], nccl=None)]

    assert chosen(CUDA, world, found) == [0]
    assert not decide(CUDA, world, assign_roles(1, CUDA), found).nccl


def test_embedding_ranks_may_stay_on_the_cpu() -> None:
    config = RolesConfig(dense=2, embedding=2, device="cuda", embedding_device="cpu")
    world, found = nodes(4, 4, 2)
    found = [replace(f, nccl=None) for f in found]
    found[3] = GpuFacts()  # needs nothing
    roles = assign_roles(4, config)
    made = decide(config, world, roles, found)

    assert chosen(config, world, found) == [0, 1, "cpu", "cpu"]
    assert (made.kind(roles.dense), made.kind(roles.embedding)) == ("cuda", "cpu")
    assert not made.nccl
    assert made.why == "ranks 0-1 on GPUs (2 x H100 80.0 GiB), ranks 2-3 on the CPU"


def test_a_rank_has_one_device() -> None:
    config = RolesConfig(embedding_device="cpu")
    with pytest.raises(
        ConfigError, match=r"ranks 0-1 hold rows and run the dense model.*write dev"
    ):
        check_devices(config, assign_roles(2, config))

    for fine in (
        RolesConfig(device="cpu", embedding_device="cpu"),
        RolesConfig(dense=1, embedding=1, embedding_device="cpu"),
        RolesConfig(device="cuda"),
    ):
        check_devices(fine, assign_roles(2, fine))


def test_nccl_carries_rows_where_every_rank_has_a_gpu() -> None:
    world, found = nodes(4, 2, 2)

    assert decide(CUDA, world, assign_roles(4, CUDA), found).nccl


def test_a_cpu_is_entered_and_has_no_memory_of_its_own() -> None:
    device = RankDevice()
    device.enter()

    assert device.torch == torch.device("cpu")
    assert device.free_bytes() is None
    assert RankDevice("cuda", 3).torch == torch.device("cuda", 3)
