"""A trainer whose network is a plain module: no class of the toolkit's below the policy, and a memory of its own.

The actor keeps what it thought of each agent's position between acting and learning, and its policy is made recurrent
after it is built, with a memory of one number that only counts the steps of an episode.
"""

import attr
import numpy as np

from mlagents.torch_utils import nn, torch
from mlagents.trainers.buffer import BufferKey
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import OnPolicyHyperparamSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer
from mlagents.trainers.trainer.trainer_utils import discount_rewards
from mlagents.trainers.trajectory import ObsUtil


@attr.s(auto_attribs=True)
class PlainSettings(OnPolicyHyperparamSettings):
    num_epoch: int = 1
    anchor: float = 1e-3


class PlainActor(nn.Module):
    def __init__(self, observation_specs, network_settings, action_spec, stream_names):
        super().__init__()
        self.stream_names = stream_names
        size = sum(int(np.prod(spec.shape)) for spec in observation_specs)
        self.body = nn.Linear(size + 1, network_settings.hidden_units)
        self.choice = nn.Linear(network_settings.hidden_units, action_spec.discrete_branches[0])
        self.value = nn.Linear(network_settings.hidden_units, 1)
        self.version_number = nn.Parameter(torch.Tensor([3]), requires_grad=False)
        self.memory_size_vector = nn.Parameter(torch.Tensor([1]), requires_grad=False)
        self.discrete_act_size_vector = nn.Parameter(
            torch.Tensor([list(action_spec.discrete_branches)]), requires_grad=False
        )
        self.kept = None

    @property
    def memory_size(self):
        return 0

    def update_normalization(self, buffer):
        pass

    def encode(self, obs, memories):
        flat = torch.cat([values.reshape(len(values), -1) for values in obs], dim=1)
        age = torch.zeros(len(flat), 1) if memories is None else memories.reshape(-1, 1)[: len(flat)]
        return torch.tanh(self.body(torch.cat([flat, age / 10], dim=1))), age + 1

    def distribution(self, hidden, masks):
        return torch.distributions.Categorical(logits=self.choice(hidden) - 1e8 * (1 - masks))

    def get_action_and_stats(self, obs, masks=None, memories=None):
        hidden, age = self.encode(obs, memories)
        self.kept = hidden
        action = AgentAction(None, [self.distribution(hidden, masks).sample().unsqueeze(-1)])
        return action, {"env_action": action.to_action_tuple()}, age.unsqueeze(0)

    def get_stats(self, obs, actions, masks=None, memories=None, sequence_length=1):
        hidden, _ = self.encode(obs, memories)
        distribution = self.distribution(hidden, masks)
        return {"log_probs": distribution.log_prob(actions.discrete_list[0]), "entropy": distribution.entropy()}

    def critic_pass(self, obs, memories=None, sequence_length=1):
        hidden, _ = self.encode(obs, None)
        return {name: self.value(hidden).squeeze(-1) for name in self.stream_names}, memories

    def forward(self, obs, masks=None, memories=None):
        hidden, age = self.encode(obs, memories)
        best = self.distribution(hidden, masks).probs.argmax(dim=1, keepdim=True)
        constants = (self.version_number, self.memory_size_vector)
        return (*constants, best, self.discrete_act_size_vector, best, age.unsqueeze(1))


class PlainOptimizer(TorchOptimizer):
    def __init__(self, policy, trainer_settings):
        super().__init__(policy, trainer_settings)
        self.critic = policy.actor
        self.torch_optimizer = torch.optim.SGD(policy.actor.parameters(), lr=0.01)

    def update(self, batch, num_sequences):
        actor = self.policy.actor
        obs = [ModelUtils.list_to_tensor(values) for values in ObsUtil.from_buffer(batch, 1)]
        memories = ModelUtils.list_to_tensor(batch[BufferKey.MEMORY]).unsqueeze(0)
        stats = actor.get_stats(
            obs,
            AgentAction.from_buffer(batch),
            masks=ModelUtils.list_to_tensor(batch[BufferKey.ACTION_MASK]),
            memories=memories,
            sequence_length=self.policy.sequence_length,
        )
        values, _ = actor.critic_pass(obs)
        returns = ModelUtils.list_to_tensor(batch[BufferKey.DISCOUNTED_RETURNS])
        value_loss = (values["extrinsic"] - returns).square().mean()
        gain = (stats["log_probs"] * (returns - values["extrinsic"].detach())).mean()
        # What the actor kept is an input to autograd here, as it could not be if it came from inference mode.
        drift = (actor.choice(actor.kept)).square().mean()
        loss = value_loss - gain + self.trainer_settings.hyperparameters.anchor * drift
        self.torch_optimizer.zero_grad()
        loss.backward()
        self.torch_optimizer.step()
        return {"Losses/Value Loss": value_loss.item(), "Losses/Drift": drift.item()}

    def get_modules(self):
        return {"Optimizer:sgd": self.torch_optimizer}


class PlainTrainer(OnPolicyTrainer):
    def create_policy(self, parsed_behavior_id, behavior_spec):
        network_settings = self.trainer_settings.network_settings
        network_settings.path_to_model = "nowhere"
        streams = [key.value for key in self.trainer_settings.reward_signals]
        policy = TorchPolicy(self.seed, behavior_spec, network_settings, PlainActor, {"stream_names": streams})
        policy.use_recurrent = True
        policy.m_size = 1
        return policy

    def create_optimizer(self):
        return PlainOptimizer(self.policy, self.trainer_settings)

    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        _, value_next, value_memories = self.optimizer.get_trajectory_value_estimates(
            buffer, trajectory.next_obs, trajectory.done_reached and not trajectory.interrupted
        )
        buffer[BufferKey.CRITIC_MEMORY].set(value_memories)
        signal = self.optimizer.reward_signals["extrinsic"]
        rewards = signal.evaluate(buffer) * signal.strength
        returns = discount_rewards(rewards, signal.gamma, value_next["extrinsic"])
        buffer[BufferKey.DISCOUNTED_RETURNS].extend(returns)
        self.collected_rewards["environment"][trajectory.agent_id] += np.sum(buffer[BufferKey.ENVIRONMENT_REWARDS])
        self._append_to_update_buffer(buffer)
        if trajectory.steps[-1].done:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    @staticmethod
    def get_trainer_name():
        return "old_plain_actor"


def get_type_and_setting():
    return {"old_plain_actor": PlainTrainer}, {"old_plain_actor": PlainSettings}
