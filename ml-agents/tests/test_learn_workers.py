"""The command with environments in processes of their own."""

import json

import torch
import yaml


def test_a_run_in_several_processes_writes_what_one_in_a_single_process_does(run_learn, basic_config, tmp_path):
    code, out, err = run_learn(basic_config(), "--env", "Basic", "--run-id", "run", "--seed", 1, "--num-envs", 2)
    assert code == 0, err
    run = tmp_path / "results" / "run"
    assert (run / "Basic.onnx").is_file()
    timers = json.loads((run / "run_logs" / "timers.json").read_text())
    for worker in ("worker0", "worker1"):
        assert timers["children"][worker]["is_parallel"]
        assert timers["children"][worker]["children"]["env_step"]["count"] > 10
    assert yaml.safe_load((run / "configuration.yaml").read_text())["env_settings"]["num_envs"] == 2
    assert "WARNING" not in out


def test_a_worker_that_dies_in_a_run_is_a_warning_and_the_run_goes_on(run_learn, basic_config, tmp_path):
    (tmp_path / "mortal_env.py").write_text(
        "import os, pathlib\n"
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "class Env(BasicEnv):\n"
        "    n = 0\n"
        "    def __init__(self, worker_id):\n"
        "        super().__init__()\n"
        "        self.mark = pathlib.Path(f'born-{worker_id}')\n"
        "        self.is_mortal = worker_id == 1 and not self.mark.exists()\n"
        "        self.mark.touch()\n"
        "    def step(self):\n"
        "        self.n += 1\n"
        "        if self.is_mortal and self.n == 20:\n"
        "            os._exit(9)\n"
        "        super().step()\n"
    )
    code, out, err = run_learn(
        basic_config(), "--env", "module:mortal_env:Env", "--run-id", "run", "--seed", 1, "--num-envs", 2
    )
    assert code == 0, err
    assert "Worker 1 failed and starts anew (restart 1); the others go on." in out
    assert "Its process ended with exit code 9." in out
    assert (tmp_path / "results" / "run" / "Basic.onnx").is_file()


def test_what_was_learned_is_saved_when_a_worker_fails_too_often(run_learn, basic_config, tmp_path):
    (tmp_path / "hopeless_env.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "from mlagents_envs.exception import UnityTimeOutException\n"
        "class Env(BasicEnv):\n"
        "    n = 0\n"
        "    def step(self):\n"
        "        self.n += 1\n"
        "        if self.n == 100:\n"
        "            raise UnityTimeOutException('It hangs.')\n"
        "        super().step()\n"
    )
    code, _, err = run_learn(
        basic_config(max_steps=10_000), "--env", "module:hopeless_env:Env", "--run-id", "run", "--num-envs", 2
    )
    assert code == 1
    assert "failed and is not started again: it failed 2 times within 60 seconds" in err
    assert "What happened: It hangs." in err
    assert "Traceback" not in err
    state = torch.load(tmp_path / "results" / "run" / "Basic" / "checkpoint.pt", weights_only=True)
    assert int(state["global_step"]["_GlobalSteps__global_step"]) > 150


def test_several_environments_need_an_executable_or_a_name(run_learn, basic_config, tmp_path):
    code, _, err = run_learn(basic_config(), "--run-id", "run", "--num-envs", 2)
    assert code == 1
    assert "--num-envs 2 needs --env: there is one Unity Editor" in err
    assert not (tmp_path / "results").exists()
