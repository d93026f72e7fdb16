"""The losses of SAC.

Source: Haarnoja et al., Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic
Actor (2018), with a value network and its target; the weights of the entropy as in Haarnoja et al., Soft Actor-Critic
Algorithms and Applications (2018). For branches the expectations over choices are computed rather than sampled
(Christodoulou, Soft Actor-Critic for Discrete Action Settings, 2019).

Axis letters: B rows, T steps of a sequence, S sequences, C continuous actions, D branches, N = sum of branch sizes.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, cast

import attr
import numpy as np

from mlagents.torch_utils import default_device, nn, torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.sac.array_learning import ArraySACLearner, SACArrays
from mlagents.trainers.sac.networks import LogEntCoef, PolicyValueNetwork, Streams
from mlagents.trainers.settings import OffPolicyHyperparamSettings, TrainerSettings, setting
from mlagents.trainers.settings.fields import FRACTION, Range
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.array_networks import ArrayCache
from mlagents.trainers.torch_entities.fused_adam import FusedAdam
from mlagents.trainers.torch_entities.networks import Encoding, ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs.timers import timed

_AS_OFTEN = attr.Factory(lambda settings: settings.steps_per_update, takes_self=True)


@attr.s(auto_attribs=True)
class SACSettings(OffPolicyHyperparamSettings):
    """Hyperparameters of SAC."""

    tau: float = setting(0.005, help="How far the target network moves per update; 1: a copy.", check=FRACTION)
    init_entcoef: float = setting(1.0, help="Weight of the entropy at the start.", check=Range(above=0))
    reward_signal_steps_per_update: float = setting(
        _AS_OFTEN,
        help="Agent steps per update of the reward signals; default: as for the policy.",
        check=Range(above=0),
    )


class TargetEntropy(NamedTuple):
    """The entropies that the weights are adjusted to keep: of each branch, and of all continuous actions together."""

    discrete: List[float] = []
    continuous: float = 0.0


class _Losses(NamedTuple):
    q1: torch.Tensor
    q2: torch.Tensor
    value: torch.Tensor
    policy: torch.Tensor
    entropy_coefficients: torch.Tensor


class TorchSACOptimizer(TorchOptimizer):
    """Improves an actor by what two Q-networks say of it.

    :param policy: whose actor is improved; its continuous actions are squashed by tanh.
    :param trainer_settings: with `SACSettings` as hyperparameters.
    """

    PolicyValueNetwork = PolicyValueNetwork
    TargetEntropy = TargetEntropy
    LogEntCoef = LogEntCoef

    continuous_target_entropy_scale = 1.0
    """Of the target per continuous action, which is -1 (Haarnoja et al., appendix D)."""
    discrete_target_entropy_scale = 0.2
    """Of the target of a branch, which is the greatest entropy that it can have."""

    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        settings = self.hyperparameters = cast(SACSettings, trainer_settings.hyperparameters)
        self.tau, self.init_entcoef = settings.tau, settings.init_entcoef
        self.stream_names = list(self.reward_signals)
        self.gammas = [signal.gamma for signal in self.reward_signals.values()]
        self.use_dones_in_backup = {name: float(not it.ignore_done) for name, it in self.reward_signals.items()}
        spec, network_settings = policy.behavior_spec, policy.network_settings
        self._n_obs, self._action_spec = len(spec.observation_specs), spec.action_spec
        self._branches = list(spec.action_spec.discrete_branches)

        networks = self.stream_names, spec.observation_specs, network_settings
        self.q_network = PolicyValueNetwork(*networks, spec.action_spec).to(default_device())
        self.critic = ValueNetwork(*networks).to(default_device())
        self.target_network = ValueNetwork(*networks).to(default_device())
        self.target_network.load_state_dict(self.critic.state_dict())
        self.target_entropy = TargetEntropy(
            [self.discrete_target_entropy_scale * math.log(size) for size in self._branches],
            -self.continuous_target_entropy_scale * spec.action_spec.continuous_size,
        )
        self._discrete_targets = torch.tensor(self.target_entropy.discrete, device=default_device())
        self.log_ent_coef = LogEntCoef(
            nn.Parameter(torch.full((len(self._branches),), math.log(self.init_entcoef))),
            nn.Parameter(torch.full((1,), math.log(self.init_entcoef))),
        ).to(default_device())

        # Then each has to see for itself.
        self._encoders_learn = self.critic.network_body.observation_encoder.is_learned
        self._n_rows_normalized = -1  # by the networks' statistics, which may come from a checkpoint
        # The order of parameters is that of Adam's state in a checkpoint.
        rate = settings.learning_rate
        self._actor_parameters = [it for it in policy.actor.parameters() if it.requires_grad]
        self._critic_parameters = [it.detach() for it in self.critic.parameters()]
        self._target_parameters = [it.detach() for it in self.target_network.parameters()]
        self.policy_optimizer = FusedAdam(policy.actor.parameters(), lr=rate)
        self.value_optimizer = FusedAdam([*self.q_network.parameters(), *self.critic.parameters()], lr=rate)
        self.entropy_optimizer = FusedAdam(self.log_ent_coef.parameters(), lr=rate)
        self._array_learner = ArrayCache(ArraySACLearner)
        self.decay_learning_rate = ModelUtils.DecayedValue(
            settings.learning_rate_schedule, rate, 1e-10, trainer_settings.max_steps
        )

    # The losses. Log-probabilities are of fresh actions, and for branches of all choices. Equations are those of the
    # first paper.

    def sac_q_loss(
        self,
        q1_out: Streams,
        q2_out: Streams,
        target_values: Streams,
        dones: torch.Tensor,
        rewards: Streams,
        loss_masks: Optional[torch.Tensor],
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return for each network half the squared error of Q, averaged over streams (equations 7 and 8).

        :param q1_out: (B,) by stream, of the actions that were taken.
        :param q2_out: likewise.
        :param target_values: (B,) by stream, what the target network says of the next state.
        :param dones: (B,), 1 where nothing comes after.
        :param rewards: (B,) by stream.
        :param loss_masks: (B,), see `masked_mean`.
        """
        q1_losses, q2_losses = [], []
        for name, gamma in zip(self.stream_names, self.gammas):
            goes_on = 1.0 - self.use_dones_in_backup[name] * dones
            backup = torch.addcmul(rewards[name], goes_on, target_values[name], value=gamma)
            assert q1_out[name].shape == q2_out[name].shape == backup.shape
            q1_losses.append(_half_squared_error(q1_out[name], backup, loss_masks))
            q2_losses.append(_half_squared_error(q2_out[name], backup, loss_masks))
        return _mean(q1_losses), _mean(q2_losses)

    def sac_value_loss(
        self,
        log_probs: ActionLogProbs,
        values: Streams,
        q1p_out: Streams,
        q2p_out: Streams,
        loss_masks: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """Return half the squared error of values, averaged over streams (equation 5): V -> min(Q1, Q2) + entropy.

        With branches, what they are worth and their entropy are means over them.

        :param values: (B,) by stream.
        :param q1p_out: by stream (B,), or (B, N) with branches, of fresh continuous actions.
        :param q2p_out: likewise.
        """
        losses = []
        for name, value in values.items():
            with torch.no_grad():
                q1, q2 = q1p_out[name], q2p_out[name]
                if self._branches:
                    q1, q2 = (self._expected_q(log_probs, q).mean(dim=1) for q in (q1, q2))
                target = torch.minimum(q1, q2) - self._weighted_log_probs(log_probs)
                if self._branches:
                    target = target - self._weighted_negative_entropies(log_probs).mean(dim=1)
            assert value.shape == target.shape
            losses.append(_half_squared_error(value, target, loss_masks))
        return _mean(losses)

    def sac_policy_loss(
        self, log_probs: ActionLogProbs, q1p_outs: Streams, loss_masks: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted negative entropy less Q (equation 12), with Q the mean over streams.

        With branches, both are sums over them.

        :param q1p_outs: by stream (B,), or (B, N) with branches, of fresh continuous actions.
        """
        q = _mean(list(q1p_outs.values()))
        per_row = self._weighted_log_probs(log_probs)
        if self._branches:
            per_row = per_row + self._weighted_negative_entropies(log_probs).sum(dim=1)
            q = self._expected_q(log_probs, q).sum(dim=1)
        return ModelUtils.masked_mean(per_row - q, loss_masks)

    def sac_entropy_loss(self, log_probs: ActionLogProbs, loss_masks: Optional[torch.Tensor]) -> torch.Tensor:
        """Return what lowers a weight where the entropy is above its target, and raises it where it is below.

        That is equation 18 of the second paper with the weight's logarithm in the place of the weight, as in the
        authors' code.
        """
        gains = []
        if log_probs.continuous_tensor is not None:
            missing = log_probs.continuous_tensor.detach().sum(dim=1) + self.target_entropy.continuous
            gains.append(ModelUtils.masked_mean(self.log_ent_coef.continuous * missing, loss_masks))
        if self._branches:
            missing = self._negative_entropies(log_probs).detach() + self._discrete_targets
            gains.append(ModelUtils.masked_mean(self.log_ent_coef.discrete * missing, loss_masks))
        return -gains[0] if len(gains) == 1 else -gains[0] - gains[1]

    def _weighted_log_probs(self, log_probs: ActionLogProbs) -> Any:
        """Return the log-densities of continuous actions (B,), weighted; 0 where there are none."""
        if log_probs.continuous_tensor is None:
            return 0.0
        return self.log_ent_coef.continuous.detach().exp() * log_probs.continuous_tensor.sum(dim=1)

    def _weighted_negative_entropies(self, log_probs: ActionLogProbs) -> torch.Tensor:
        """Return the sum of p ln p over the choices of each branch, weighted (B, D)."""
        return self.log_ent_coef.discrete.detach().exp() * self._negative_entropies(log_probs)

    @staticmethod
    def _negative_entropies(log_probs: ActionLogProbs) -> torch.Tensor:
        assert log_probs.all_discrete_list is not None
        return torch.stack([(log_p.exp() * log_p).sum(dim=1) for log_p in log_probs.all_discrete_list], dim=1)

    def _expected_q(self, log_probs: ActionLogProbs, q: torch.Tensor) -> torch.Tensor:
        """Return what each branch is expected to be worth (B, D), for the values of all choices (B, N)."""
        assert log_probs.all_discrete_list is not None
        branches = zip(log_probs.all_discrete_list, self._by_branch(q))
        return torch.stack([(log_p.exp() * of_branch).sum(dim=1) for log_p, of_branch in branches], dim=1)

    def _by_branch(self, q: torch.Tensor) -> List[torch.Tensor]:
        # With one choice in all, the heads leave its axis out.
        return ModelUtils.break_into_branches(q.reshape(-1, sum(self._branches)), self._branches)

    # The step

    @timed
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        """Take a gradient step on a minibatch of B rows, and move the target network.

        :raises NotFiniteError: a loss is not finite; nothing was changed.
        """
        learning_rate = self.decay_learning_rate.get_value(self.policy.get_current_step())
        learner = self._find_learner()
        numbers = self._differentiate(batch) if learner is None else self._differentiate_in_arrays(batch, learner)
        for optimizer in (self.policy_optimizer, self.value_optimizer, self.entropy_optimizer):
            ModelUtils.update_learning_rate(optimizer, learning_rate)
            optimizer.step()
        torch._foreach_lerp_(self._target_parameters, self._critic_parameters, self.tau)
        return {
            "Losses/Policy Loss": numbers["policy"],
            "Losses/Value Loss": numbers["value"],
            "Losses/Q1 Loss": numbers["q1"],
            "Losses/Q2 Loss": numbers["q2"],
            "Policy/Learning Rate": learning_rate,
            **self._entropy_coefficients(),
        }

    def _find_learner(self) -> Optional[ArraySACLearner]:
        """Return what differentiates the networks without autograd, None where they or the losses are other ones."""
        cls = type(self)
        if cls is not TorchSACOptimizer and any(getattr(cls, it) is not of_ours for it, of_ours in _LOSSES.items()):
            return None
        if not _LOSSES.keys().isdisjoint(vars(self)):
            return None
        return self._array_learner.get(
            self.policy.actor, self.q_network, self.critic, self.target_network, self.log_ent_coef
        )

    def _differentiate(self, batch: AgentBuffer) -> Dict[str, float]:
        """Set the gradients of all parameters; return the losses by name."""
        losses = self._losses(batch)
        numbers = dict(zip(losses._fields, torch.stack(losses).tolist()))
        self._check(numbers)
        self._zero_grad()
        # Q-networks get no gradients from the policy's loss, which is to change the actor alone.
        losses.policy.backward(inputs=self._actor_parameters)  # type: ignore[no-untyped-call]  # in older torch
        (losses.q1 + losses.q2 + losses.value + losses.entropy_coefficients).backward()  # type: ignore[no-untyped-call]
        return numbers

    def _differentiate_in_arrays(self, batch: AgentBuffer, learner: ArraySACLearner) -> Dict[str, float]:
        """Do what `_differentiate` does, without autograd."""
        self._copy_normalization()
        discounts = {
            name: (gamma, self.use_dones_in_backup[name]) for name, gamma in zip(self.stream_names, self.gammas)
        }
        arrays = SACArrays.from_buffer(batch, self._n_obs, discounts)
        with np.errstate(all="ignore"):  # what is not finite is found here, and by whoever takes a step
            numbers = learner.evaluate(arrays, self.target_entropy.continuous)
            self._check(numbers)
            self._zero_grad()
            learner.backward()
        return numbers

    def _check(self, losses: Dict[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NotFiniteError(f"{type(self).__name__}: the loss {name} is not finite")

    def _zero_grad(self) -> None:
        for optimizer in (self.policy_optimizer, self.value_optimizer, self.entropy_optimizer):
            optimizer.zero_grad()

    def _entropy_coefficients(self) -> Dict[str, float]:
        """Return the weights of the entropy as statistics, those of branches as their mean."""
        stats = {}
        if self._branches:
            stats["Policy/Discrete Entropy Coeff"] = self.log_ent_coef.discrete.exp().mean().item()
        if self._action_spec.continuous_size:
            stats["Policy/Continuous Entropy Coeff"] = self.log_ent_coef.continuous.exp().item()
        return stats

    def _losses(self, batch: AgentBuffer) -> _Losses:
        """Run all networks on a minibatch."""
        self._copy_normalization()
        obs = ModelUtils.list_to_tensor_list(ObsUtil.from_buffer(batch, self._n_obs))
        length = self.policy.sequence_length
        fresh, log_probs = self.policy.actor.sample_actions(
            obs,
            masks=ModelUtils.list_to_tensor(batch[BufferKey.ACTION_MASK]) if self._branches else None,
            memories=self.initial_memories(batch),
            sequence_length=length,
        )
        seen = self.critic.network_body.encode(obs)
        seen_by_q = self.q_network.encode(obs) if self._encoders_learn else (seen, seen)
        q_taken, q_fresh = self._q_values(seen_by_q, AgentAction.from_buffer(batch), fresh)
        value_memories = self.initial_memories(batch, BufferKey.CRITIC_MEMORY)
        values, _ = self.critic.critic_pass(seen, memories=value_memories, sequence_length=length)
        loss_masks = ModelUtils.list_to_tensor(batch[BufferKey.MASKS], torch.bool) if length > 1 else None
        rewards = {
            name: ModelUtils.list_to_tensor(batch[RewardSignalUtil.rewards_key(name)]) for name in self.stream_names
        }
        dones = ModelUtils.list_to_tensor(batch[BufferKey.DONE])
        next_values = self._next_values(batch, obs, value_memories)
        return _Losses(
            *self.sac_q_loss(*q_taken, next_values, dones, rewards, loss_masks),
            self.sac_value_loss(log_probs, values, *q_fresh, loss_masks),
            self.sac_policy_loss(log_probs, q_fresh[0], loss_masks),
            self.sac_entropy_loss(log_probs, loss_masks),
        )

    def _q_values(
        self, seen: Tuple[Encoding, Encoding], taken: AgentAction, fresh: AgentAction
    ) -> Tuple[Tuple[Streams, Streams], Tuple[Streams, Streams]]:
        """Return what both Q-networks say of the actions that were taken, (B,), and of fresh ones, as they give it.

        Of those, only the first is differentiated, for the policy's sake. Memories start from zero.
        """
        length, memories = self.policy.sequence_length, None
        if self.policy.use_recurrent:
            memories = torch.zeros(1, len(seen[0].joint) // length, self.q_network.memory_size, device=default_device())
        if self._action_spec.continuous_size:
            q_taken = self.q_network(seen, taken.continuous_tensor, memories, length)
            q_fresh = self.q_network(seen, fresh.continuous_tensor, memories, length, q2_grad=False)
        else:
            q_taken = self.q_network(seen, None, memories, length)
            q_fresh = tuple({name: q.detach() for name, q in streams.items()} for streams in q_taken)
        if self._branches:
            q_taken = tuple({name: self._of_choices(q, taken) for name, q in streams.items()} for streams in q_taken)
        return q_taken, q_fresh

    def _of_choices(self, q: torch.Tensor, actions: AgentAction) -> torch.Tensor:
        """Return the values (B,) of choices that were made, the mean over branches, for those of all choices (B, N)."""
        assert actions.discrete_list is not None
        branches = zip(self._by_branch(q), actions.discrete_list)
        return torch.cat([of_branch.gather(1, chosen[:, None]) for of_branch, chosen in branches], dim=1).mean(dim=1)

    @torch.no_grad()
    def _next_values(
        self, batch: AgentBuffer, obs: List[torch.Tensor], value_memories: Optional[torch.Tensor]
    ) -> Streams:
        """Return what the target network says of the next states, (B,) by stream.

        Its sequences begin one step later, with what the value network remembers then.
        """
        next_obs = ModelUtils.list_to_tensor_list(ObsUtil.from_buffer_next(batch, self._n_obs))
        length, memories = self.policy.sequence_length, value_memories
        if memories is not None:
            _, memories = self.critic.critic_pass([it[::length].contiguous() for it in obs], memories=memories)
        values, _ = self.target_network.critic_pass(next_obs, memories=memories, sequence_length=length)
        return values

    def _copy_normalization(self) -> None:
        """Let all networks see observations as the actor does."""
        source = self.policy.actor.network_body
        if self._n_rows_normalized == source.observation_encoder.n_rows_normalized:
            return
        self._n_rows_normalized = source.observation_encoder.n_rows_normalized
        for network in (self.q_network.q1_network, self.q_network.q2_network, self.critic, self.target_network):
            network.network_body.copy_normalization(source)

    def get_modules(self) -> Dict[str, Any]:
        """Return what of the optimizer belongs into a checkpoint."""
        return {
            "Optimizer:q_network": self.q_network,
            "Optimizer:value_network": self.critic,
            "Optimizer:target_network": self.target_network,
            "Optimizer:policy_optimizer": self.policy_optimizer,
            "Optimizer:value_optimizer": self.value_optimizer,
            "Optimizer:entropy_optimizer": self.entropy_optimizer,
            "Optimizer:log_ent_coef": self.log_ent_coef,
            **super().get_modules(),
        }


_LOSSES = {
    name: vars(TorchSACOptimizer)[name]
    for name in (
        "sac_q_loss",
        "sac_value_loss",
        "sac_policy_loss",
        "sac_entropy_loss",
        "_weighted_log_probs",
        "_losses",
        "_q_values",
        "_next_values",
        "_copy_normalization",
    )
}
"""What is written out in `array_learning`; a subclass that has its own of one of them learns by autograd."""


def _half_squared_error(
    estimates: torch.Tensor, targets: torch.Tensor, loss_masks: Optional[torch.Tensor]
) -> torch.Tensor:
    """Return half the mean of the squared differences (B,); see `masked_mean`."""
    errors = estimates - targets
    if loss_masks is None:
        return torch.dot(errors, errors) * (0.5 / len(errors))  # less to call than their squares' mean
    return 0.5 * ModelUtils.masked_mean(errors.square(), loss_masks)


def _mean(tensors: List[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(dim=0)
