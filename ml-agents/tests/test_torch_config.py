import subprocess
import sys

import pytest
import torch
import yaml
from threadpoolctl import threadpool_info

from mlagents.torch_utils import cpu_utils, default_device, set_torch_config
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings import TorchSettings

# The package's own attribute of that name is torch itself.
torch_utils = sys.modules["mlagents.torch_utils.torch"]


@pytest.fixture(autouse=True)
def _settings_of_torch_kept(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    device, threads = torch_utils._device, torch.get_num_threads()
    yield
    torch_utils._device = device
    torch.set_num_threads(threads)


def test_the_cpu_when_asked_for():
    set_torch_config(TorchSettings(device="cpu"))
    assert default_device() == torch.device("cpu")
    assert torch.get_num_threads() == cpu_utils.get_num_threads_to_use()
    assert {it["num_threads"] for it in threadpool_info() if it["user_api"] == "blas"} == {1}


def test_the_default_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch_utils, "_device", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == torch.device("cuda")
    monkeypatch.setattr(torch_utils, "_device", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "tpu", "banana:1", ""])
def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: name == "cuda:7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    before = torch_utils._device
    with pytest.raises(TrainerConfigError) as error:
        set_torch_config(TorchSettings(device=name))
    assert f"'{name}'" in str(error.value)
    assert "cpu" in str(error.value)
    assert "--torch-device" in str(error.value)
    assert ("cuda:0" in str(error.value)) == (name == "cuda:7")
    assert torch_utils._device is before


@pytest.mark.parametrize(
    ("cpus", "quota", "threads", "for_images"),
    [
        (1, "max 100000", 1, 1),
        (2, "max 100000", 1, 2),
        (8, "max 100000", 4, 4),
        (64, "max 100000", 4, 4),
        (64, "600000 100000", 3, 4),
        (64, "300000 100000", 1, 3),
    ],
)
def test_half_of_the_processors_or_all_for_images(monkeypatch, tmp_path, cpus, quota, threads, for_images):
    monkeypatch.setattr(cpu_utils.os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    monkeypatch.setattr(cpu_utils, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cpu_utils.get_num_threads_to_use() == threads
    assert cpu_utils.get_num_threads_for_images() == for_images


@pytest.mark.parametrize(("wish", "threads"), [("5", 5), ("3,2", 3), (" 1 ", 1), ("0", 4), ("many", 4), ("", 4)])
def test_as_many_as_the_user_wants(monkeypatch, wish, threads):
    monkeypatch.setattr(cpu_utils, "_available_cpus", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert cpu_utils.get_num_threads_to_use() == threads
    assert cpu_utils.get_num_threads_for_images() == threads


def test_processors_without_control_groups(monkeypatch, tmp_path):
    monkeypatch.delattr(cpu_utils.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cpu_utils.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(cpu_utils, "_CGROUP_QUOTA", tmp_path / "absent")
    assert cpu_utils.get_num_threads_to_use() == 3


def test_importing_chooses_nothing():
    code = (
        "import sys, torch; before = torch.get_num_threads(); import mlagents.torch_utils;"
        "assert sys.modules['mlagents.torch_utils.torch']._device is None;"
        "assert torch.get_num_threads() == before and not torch.cuda.is_initialized();"
        "assert not any(name.startswith('mlagents.trainers') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(("env", "threads"), [("Basic", 1), ("GridWorld", 3)])
def test_a_run_with_images_takes_more_threads(run_learn, tmp_path, monkeypatch, env, threads):
    monkeypatch.setattr(cpu_utils, "_available_cpus", lambda: 3)
    hyperparameters = {"batch_size": 8, "buffer_size": 10**6}
    network = {"hidden_units": 8, "num_layers": 1}
    behavior = {"trainer_type": "ppo", "hyperparameters": hyperparameters, "network_settings": network, "max_steps": 20}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"behaviors": {env: behavior}}))
    code, _, _ = run_learn(config, "--env", env)
    assert code == 0
    assert torch.get_num_threads() == threads
