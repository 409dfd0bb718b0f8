"""What a job becomes once its ranks have a device: memory of rows, speeds, names of tiers. Pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourfold.runtime.blueprint import hardware_of, storage_of
from fourfold.runtime.config import Job, load_job, settle
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.hardware import CORE, H100, HardwareConfig
from fourfold.runtime.roles import RolesConfig
from fourfold.runtime.tiers import PAD_SHARE, on_device, shown_name, with_pad
from fourfold.runtime.toml_text import dump
from fourfold.storage import StorageConfig

GIB = 1 << 30


def job(folder: Path, text: str = "") -> Job:
    path = folder / "job.toml"
    path.write_text('[data]\nkind = "criteo"\npaths = ["nowhere"]\n' + text)
    return load_job(path)


def test_on_a_cpu_nothing_changes() -> None:
    for storage in (StorageConfig(), StorageConfig(pad_bytes=GIB), StorageConfig(host_bytes=GIB)):
        assert with_pad(storage, "cpu", None) is storage
        assert on_device(storage, "cpu") is storage


def test_without_a_word_the_pad_takes_its_share_of_the_gpu() -> None:
    storage = with_pad(StorageConfig(), "cuda", 80 * GIB)

    assert storage.pad_budget == pytest.approx(PAD_SHARE * 80 * GIB, abs=1 << 20)
    assert with_pad(StorageConfig(pad_bytes="4GiB"), "cuda", 80 * GIB).pad_budget == 4 * GIB
    assert with_pad(StorageConfig(), "cuda", None).pad_budget is None


def test_a_gpu_has_the_tiers_that_the_job_names() -> None:
    """On a CPU a pad alone would have host memory without a limit below it."""
    alone = on_device(StorageConfig(pad_bytes=GIB, fixed_lookahead=True), "cuda")
    assert (alone.tiers, alone.pad_budget, alone.budget_bytes) == (("host",), GIB, GIB)

    two = on_device(StorageConfig(pad_bytes=GIB, host_bytes=4 * GIB), "cuda")
    assert (two.tiers, two.budget_bytes) == (("pad", "host"), 5 * GIB)

    three = StorageConfig(pad_bytes=GIB, host_bytes=4 * GIB, file_bytes=9 * GIB)
    assert on_device(three, "cuda").tiers == ("pad", "host", "file")

    below = on_device(with_pad(StorageConfig(host_bytes=GIB), "cuda", 10 * GIB), "cuda")
    assert below.tiers == ("pad", "host")
    assert below.host_budget == GIB


@pytest.mark.parametrize(
    ("device", "tiers", "names"),
    [
        ("cpu", ("host",), ["host"]),
        ("cpu", ("pad", "host", "file"), ["pad", "host", "file"]),
        ("cuda", ("host",), ["device"]),
        ("cuda", ("pad", "host", "file"), ["device", "host", "file"]),
    ],
)
def test_tiers_are_called_what_they_are(device, tiers, names) -> None:
    shown = [shown_name(tier, tiers, device) for tier in tiers]

    assert shown == names
    assert [shown_name(name, shown, device) for name in shown] == names  # also said twice


def test_a_settled_job_says_it_all_and_is_a_job_file(tmp_path: Path) -> None:
    made = settle(job(tmp_path), "cuda", 10 * GIB)
    (tmp_path / "settled.toml").write_text(dump(made))
    read = load_job(tmp_path / "settled.toml")

    assert read == made
    assert made.world.device == "cuda"
    assert made.storage.pad_budget == 7 * GIB
    assert storage_of(made).tiers == ("host",)
    assert settle(made, "cuda", 99 * GIB) == made  # what is said is kept

    cpu = settle(job(tmp_path), "cpu")
    assert cpu.world.device == "cpu"
    assert cpu.storage == StorageConfig()


def test_rows_on_the_cpu_keep_their_memory(tmp_path: Path) -> None:
    text = "[world]\ndense = 1\nembedding = 1\nembedding_device = 'cpu'\n"
    made = settle(job(tmp_path, text), "cuda", None)

    assert (made.world.dense_device, made.world.rows_device) == ("cuda", "cpu")
    assert storage_of(made) == StorageConfig()
    assert hardware_of(made).memory_bytes_per_s == CORE.memory_bytes_per_s
    assert hardware_of(made).flops_per_s == H100.flops_per_s


def test_until_the_ranks_have_agreed_auto_counts_as_the_cpu() -> None:
    assert RolesConfig().dense_device == RolesConfig().rows_device == "cpu"


def test_speeds_are_those_of_the_device_unless_the_job_says_others() -> None:
    assert HardwareConfig().on("cpu", "cpu") == CORE
    assert HardwareConfig().on("cuda", "cuda") == H100

    own = HardwareConfig(network_bytes_per_s=25e9, device_bytes=40 * GIB).on("cuda", "cuda")
    assert (own.network_bytes_per_s, own.device_bytes) == (25e9, 40 * GIB)
    assert own.memory_bytes_per_s == H100.memory_bytes_per_s


def test_impossible_devices_are_refused(tmp_path: Path) -> None:
    for text, message in (
        ("device = 'gpu'", r'world\.device: expected .*"cuda"'),
        ("embedding_device = 'cuda'", r'world\.embedding_device: expected one of "same", "cpu"'),
    ):
        with pytest.raises(ConfigError, match=message):
            job(tmp_path, f"[world]\n{text}\n")
