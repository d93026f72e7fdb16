"""The networks against a step-by-step twin, and training on a task that needs memory."""

import pytest
import torch
from gru_trainer.networks import GRUBody

from mlagents.testing import check_trainer
from mlagents.trainers.settings import NetworkSettings
from mlagents_envs.base_env import vector_observation

MEMORY = NetworkSettings.MemorySettings(memory_size=8, sequence_length=5)


def test_a_sequence_is_what_its_steps_are():
    torch.manual_seed(1)
    body = GRUBody([vector_observation(3, "obs")], NetworkSettings(memory=MEMORY))
    observations, memories = torch.randn(2, 5, 3), torch.randn(1, 2, 8)
    with torch.no_grad():
        features, last_memories = body([observations.reshape(10, 3)], memories, sequence_length=5)
        for step in range(5):
            of_step, memories = body([observations[:, step]], memories)
            torch.testing.assert_close(features.reshape(2, 5, 8)[:, step], of_step)
    torch.testing.assert_close(last_memories, memories)


@pytest.mark.parametrize("task", ["memory", "hybrid"])
def test_it_learns(task):
    check_trainer("gru", network_settings={"memory": {"memory_size": 16, "sequence_length": 4}}, tasks=[task])
