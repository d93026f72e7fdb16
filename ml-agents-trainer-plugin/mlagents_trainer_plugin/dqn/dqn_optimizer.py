"""The network of DQN, its loss and its gradient step.

Sources: Mnih et al., Human-level control through deep reinforcement learning (2015); van Hasselt, Guez and Silver,
Deep reinforcement learning with double Q-learning (2016); for several branches Tavakoli, Pardo and Kormushev, Action
branching architectures for deep reinforcement learning (2018).

Axis letters: B rows, D branches, N = sum of branch sizes. Masks have 1 = allowed, 0 = forbidden.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple, cast

import attr

from mlagents.torch_utils import default_device, nn, torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings, OffPolicyHyperparamSettings, TrainerSettings, setting
from mlagents.trainers.settings.fields import FRACTION, POSITIVE
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.decoders import ValueHeads
from mlagents.trainers.torch_entities.distributions import FORBIDDEN_PENALTY
from mlagents.trainers.torch_entities.fused_adam import FusedAdam
from mlagents.trainers.torch_entities.networks import Actor, GlobalSteps, NetworkBody, SimpleActor
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.base_env import ActionSpec, ObservationSpec
from mlagents_envs.timers import timed


@attr.s(auto_attribs=True)
class DQNSettings(OffPolicyHyperparamSettings):
    """Hyperparameters of DQN."""

    double_q: bool = setting(True, help="Let the learning network choose the action that the target network values.")
    tau: float = setting(0.005, help="How far the target network moves to the learning one; 1: a copy.", check=FRACTION)
    target_update_interval: int = setting(1, help="Updates per move of the target network.", check=POSITIVE)
    exploration_initial: float = setting(1.0, help="Share of random actions at the start.", check=FRACTION)
    exploration_final: float = setting(0.05, help="Share of random actions at the end.", check=FRACTION)
    exploration_steps: int = setting(10000, help="Steps over which that share falls, linearly.", check=POSITIVE)


def best_choices(values: torch.Tensor, allowed: Optional[torch.Tensor], branches: List[int]) -> torch.Tensor:
    """Return the allowed choice of the greatest of `values` (B, N) in each branch, int64 (B, D)."""
    if allowed is not None:
        values = values * allowed - FORBIDDEN_PENALTY * (1 - allowed)
    by_branch = ModelUtils.break_into_branches(values, branches)
    return torch.cat([of_branch.argmax(dim=1, keepdim=True) for of_branch in by_branch], dim=1)


def values_of(values: torch.Tensor, choices: torch.Tensor, branches: List[int]) -> torch.Tensor:
    """Return which of `values` (B, N) are those of `choices` (B, D), (B, D)."""
    by_branch = zip(ModelUtils.break_into_branches(values, branches), choices.unbind(dim=1))
    return torch.stack([of_branch.gather(1, choice[:, None])[:, 0] for of_branch, choice in by_branch], dim=1)


def summed(by_stream: Dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the values of all reward streams together."""
    return torch.stack(list(by_stream.values())).sum(dim=0)


def next_values(
    chooser: Dict[str, torch.Tensor], target: Dict[str, torch.Tensor], allowed: torch.Tensor, branches: List[int]
) -> Dict[str, torch.Tensor]:
    """Return by stream what the target network says of the best that can be done in the next state (B,).

    In a branch that is Q_target(s', argmax_a Q(s', a)), where Q is the learning network (van Hasselt et al.) or the
    target network itself (Mnih et al.); over several branches it is the mean (Tavakoli et al.).

    :param chooser: by stream (B, N), the values in the next state by the network that chooses.
    :param target: likewise, by the target network.
    :param allowed: (B, N), of the next state.
    """
    best = best_choices(summed(chooser), allowed, branches)
    return {name: values_of(values, best, branches).mean(dim=1) for name, values in target.items()}


def q_loss(values: Dict[str, torch.Tensor], targets: Dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the squared error of values, with slopes clipped to [-1, 1] (Mnih et al.): the mean over all.

    :param values: by stream (B, D), of the choices that were made.
    :param targets: by stream (B,), what the value of each branch should be.
    """
    assert all(targets[name].shape == of_stream.shape[:1] for name, of_stream in values.items())
    errors = torch.stack([of_stream - targets[name][:, None] for name, of_stream in values.items()])
    return nn.functional.smooth_l1_loss(errors, torch.zeros_like(errors))


class QNetwork(nn.Module, Actor):
    """A body and for each reward stream a linear layer that values every choice of every branch.

    It acts by the greatest sum of the streams' values in each branch.

    :ivar exploration_rate: gives the share of agents that act at random; a trainer that explores sets it.
    """

    def __init__(
        self,
        observation_specs: List[ObservationSpec],
        network_settings: NetworkSettings,
        action_spec: ActionSpec,
        stream_names: List[str],
    ):
        super().__init__()
        self.branches = list(action_spec.discrete_branches)
        self.network_body = NetworkBody(observation_specs, network_settings)
        self.q_heads = ValueHeads(stream_names, self.network_body.encoding_size, sum(self.branches))
        self.exploration_rate: Callable[[], float] = lambda: 0.0
        # What else Unity reads from an exported model.
        self.version_number = nn.Parameter(torch.tensor([float(SimpleActor.MODEL_EXPORT_VERSION)]), requires_grad=False)
        self.memory_size_vector = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.discrete_act_size_vector = nn.Parameter(torch.tensor([self.branches]).float(), requires_grad=False)

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        self.network_body.update_normalization(buffer)

    def act_deterministically(self) -> None:
        """Explore no more."""
        self.exploration_rate = lambda: 0.0

    def q_values(self, inputs: List[torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Return by reward stream the values of all choices (B, N)."""
        encoding, _ = self.network_body(inputs)
        # With one choice in all, the heads leave its axis out.
        return {name: values.reshape(-1, sum(self.branches)) for name, values in self.q_heads(encoding).items()}

    def get_action_and_stats(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[AgentAction, Dict[str, Any], Optional[torch.Tensor]]:
        """Choose for every row; each draws for itself whether it takes any allowed choices instead of the best."""
        values = summed(self.q_values(inputs))
        explores = torch.rand(len(values), 1, device=values.device) < self.exploration_rate()
        choices = best_choices(torch.where(explores, torch.rand_like(values), values), masks, self.branches)
        action = AgentAction(None, [choice[:, None] for choice in choices.unbind(dim=1)])
        return action, {"env_action": action.to_action_tuple()}, None

    def forward(
        self, inputs: List[torch.Tensor], masks: Optional[torch.Tensor] = None, memories: Optional[torch.Tensor] = None
    ) -> Tuple[torch.Tensor, ...]:
        """Return the outputs of the exported model, which never explores."""
        best = best_choices(summed(self.q_values(inputs)), masks, self.branches)
        return self.version_number, self.memory_size_vector, best, self.discrete_act_size_vector, best


class DQNOptimizer(TorchOptimizer):
    """Improves a Q-network towards what another one, which follows it slowly, says of the next state.

    :param policy: whose actor is a `QNetwork`.
    :param trainer_settings: with `DQNSettings` as hyperparameters.
    """

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        settings = self.hyperparameters = cast(DQNSettings, trainer_settings.hyperparameters)
        spec = policy.behavior_spec
        self.n_obs = len(spec.observation_specs)
        self.network: QNetwork = policy.actor
        self.critic = self.network  # what acts is also what values
        self.target_network = QNetwork(
            spec.observation_specs, policy.network_settings, spec.action_spec, list(self.reward_signals)
        ).to(default_device())
        self.target_network.load_state_dict(self.network.state_dict())
        self.decay_learning_rate = ModelUtils.DecayedValue(
            settings.learning_rate_schedule, settings.learning_rate, 1e-10, trainer_settings.max_steps
        )
        self.optimizer = FusedAdam(self.network.parameters(), lr=settings.learning_rate)
        self.updates = GlobalSteps()

    @timed
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        """Take a gradient step on a minibatch of B rows, and move the target network if it is due."""
        learning_rate = self.decay_learning_rate.get_value(self.policy.get_current_step())
        choices = ModelUtils.list_to_tensor(batch[BufferKey.DISCRETE_ACTION], torch.long)
        q_values = self.network.q_values(ModelUtils.list_to_tensor_list(ObsUtil.from_buffer(batch, self.n_obs)))
        values = {name: values_of(of_stream, choices, self.network.branches) for name, of_stream in q_values.items()}
        loss = q_loss(values, self.targets(batch))
        ModelUtils.update_learning_rate(self.optimizer, learning_rate)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # in older torch
        self.optimizer.step()
        self.updates.increment(1)
        if int(self.updates.current_step) % self.hyperparameters.target_update_interval == 0:
            ModelUtils.soft_update(self.network, self.target_network, self.hyperparameters.tau)
        return {
            "Losses/Q Loss": loss.item(),
            "Policy/Learning Rate": learning_rate,
            "Policy/Exploration Rate": self.network.exploration_rate(),
            **{f"Policy/{name.capitalize()} Value": of_stream.mean().item() for name, of_stream in values.items()},
        }

    @torch.no_grad()
    def targets(self, batch: AgentBuffer) -> Dict[str, torch.Tensor]:
        """Return by stream r + gamma * value of the next state (B,); nothing comes after the end of an episode."""
        self.target_network.network_body.copy_normalization(self.network.network_body)
        next_obs = ModelUtils.list_to_tensor_list(ObsUtil.from_buffer_next(batch, self.n_obs))
        target = self.target_network.q_values(next_obs)
        chooser = self.network.q_values(next_obs) if self.hyperparameters.double_q else target
        allowed = ModelUtils.list_to_tensor(batch[BufferKey.NEXT_ACTION_MASK])
        goes_on = 1.0 - ModelUtils.list_to_tensor(batch[BufferKey.DONE])
        targets = {}
        for name, values in next_values(chooser, target, allowed, self.network.branches).items():
            signal = self.reward_signals[name]
            rewards = ModelUtils.list_to_tensor(batch[RewardSignalUtil.rewards_key(name)])
            targets[name] = rewards + signal.gamma * values * (1.0 if signal.ignore_done else goes_on)
        return targets

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the optimizer belongs into a checkpoint."""
        return {
            "Optimizer:target_network": self.target_network,
            "Optimizer:q_optimizer": self.optimizer,
            "Optimizer:updates": self.updates,
            **super().get_modules(),
        }
