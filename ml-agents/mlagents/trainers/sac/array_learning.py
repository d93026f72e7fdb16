"""SAC's losses and gradients written out in NumPy, for the standard small networks and continuous actions.

This is to SAC what `torch_entities.array_learning` is to PPO. `TorchSACOptimizer` has the definitions, with autograd;
the tests compare the two.

Axis letters: B rows, C continuous actions, E the width of encoded observations.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.torch_entities.array_inference import (
    ArrayActor,
    ArrayCritic,
    ArrayEncoding,
    draw_noise,
    squashed_log_densities,
)
from mlagents.trainers.torch_entities.array_layers import (
    Gradients,
    Heads,
    Layers,
    Linear,
    are_plain,
    parameters_of,
)
from mlagents.trainers.torch_entities.array_networks import array_of, total
from mlagents.trainers.torch_entities.distributions import EPSILON, LOG_SIGMA_BOUNDS
from mlagents.trainers.trajectory import ObsUtil


class SACArrays(NamedTuple):
    """A minibatch of B rows."""

    obs: List[np.ndarray]
    """Per observation (B, size)."""
    next_obs: List[np.ndarray]
    actions: np.ndarray
    """(B, C), those that were taken."""
    rewards: Dict[str, np.ndarray]
    """(B,) by stream."""
    discounts: Dict[str, np.ndarray]
    """(B,) by stream: what the value of the next state counts."""

    @staticmethod
    def from_buffer(batch: AgentBuffer, n_obs: int, discounts: Dict[str, Tuple[float, float]]) -> SACArrays:
        """Return what stands in a buffer.

        :param discounts: by stream gamma, and whether an episode's end ends what is to come: 1, or 0.
        """
        dones = batch[BufferKey.DONE].to_ndarray().astype(np.float32)
        return SACArrays(
            obs=ObsUtil.from_buffer(batch, n_obs),
            next_obs=ObsUtil.from_buffer_next(batch, n_obs),
            actions=batch[BufferKey.CONTINUOUS_ACTION].to_ndarray(),
            rewards={name: batch[RewardSignalUtil.rewards_key(name)].to_ndarray() for name in discounts},
            discounts={name: gamma * (1.0 - use_dones * dones) for name, (gamma, use_dones) in discounts.items()},
        )


class ArraySACLearner:
    """The networks of SAC: `evaluate`, then `backward` for the same rows.

    :param actor: whose actions are continuous, and squashed.
    :param q_network: `PolicyValueNetwork`.
    :param critic: `ValueNetwork`.
    :param target_network: likewise.
    :param log_ent_coef: `LogEntCoef`.
    """

    def __init__(self, actor: Any, q_network: Any, critic: Any, target_network: Any, log_ent_coef: Any):
        self._target = ArrayCritic(target_network)
        values = (ArrayCritic(it) for it in (q_network.q1_network, q_network.q2_network, critic))
        self._watched = (ArrayActor(actor), *values, self._target)
        # By torch optimizer, which look at those of a step as one.
        by_optimizer = parameters_of(actor), parameters_of(q_network, critic), [log_ent_coef.continuous]
        self._parameters = [parameter for parameters in by_optimizer for parameter in parameters]
        self._gradients = of_actor, of_values, of_weight = tuple(map(Gradients, by_optimizer))

        self._encode = ArrayEncoding(actor.network_body.observation_encoder)  # all networks have its statistics
        self._layers = Layers([actor.network_body], of_actor)
        self._gaussian = _SquashedGaussian(actor.action_model._continuous_distribution, of_actor)
        self._q1, self._q2, self._critic = (
            _Values(it, of_values) for it in (q_network.q1_network, q_network.q2_network, critic)
        )
        self._log_weight = array_of(log_ent_coef.continuous)
        self._weight_gradient = of_weight.of(log_ent_coef.continuous)

    @classmethod
    def of(
        cls, actor: Any, q_network: Any, critic: Any, target_network: Any, log_ent_coef: Any
    ) -> Optional[ArraySACLearner]:
        """Return the networks as arrays, or None where autograd has to do it."""
        of_actor = ArrayActor.of(actor)
        networks = q_network.q1_network, q_network.q2_network, critic, target_network
        learned = [*parameters_of(actor, q_network, critic), log_ent_coef.continuous]
        fits = (
            of_actor is not None
            and of_actor.squashes
            and not of_actor.memory_size
            and actor.action_model._discrete_distribution is None
            and not actor.action_model._deterministic
            and all(ArrayCritic.of(network) is not None for network in networks)
            and all(it.dtype is torch.float32 and it.is_cpu for it in learned)
            and are_plain(learned)
        )
        return cls(actor, q_network, critic, target_network, log_ent_coef) if fits else None

    def is_current(self, actor: Any, q_network: Any, critic: Any, target_network: Any, log_ent_coef: Any) -> bool:
        """Return whether these still are the networks, with nothing in them exchanged, moved, frozen or added since."""
        networks = actor, q_network.q1_network, q_network.q2_network, critic, target_network
        return (
            all(it.is_current(network) for it, network in zip(self._watched, networks))
            and log_ent_coef.continuous is self._parameters[-1]
            and log_ent_coef.continuous.data_ptr() == self._log_weight.ctypes.data
            and are_plain(self._parameters)
            and not actor.action_model._deterministic
        )

    def evaluate(self, batch: SACArrays, target_entropy: float) -> Dict[str, float]:
        """Run all networks; return the losses of `TorchSACOptimizer` by name.

        :param target_entropy: of all actions together.
        """
        encoding = self._encode(batch.obs)
        n_rows, n_streams = len(encoding), len(batch.rewards)
        (features,) = self._layers.forward([encoding])
        actions, log_probs = self._gaussian.forward(features, draw_noise(batch.actions.shape))
        of_row = np.add.reduce(log_probs, axis=1)
        weight = float(np.exp(self._log_weight)[0])
        # Of the rows of a Q-network the first half is for what was done, the second for what the actor would do now.
        with_actions = np.concatenate(
            [np.concatenate([encoding, batch.actions], axis=1), np.concatenate([encoding, actions], axis=1)]
        )
        q1, q2 = self._q1.forward(with_actions), self._q2.forward(with_actions)
        values, next_values = self._critic.forward(encoding), self._target.values(batch.next_obs)
        losses = dict.fromkeys(("q1", "q2", "value"), 0.0)
        losses["policy"] = weight * float(of_row.sum()) / n_rows
        share = 1.0 / (n_rows * n_streams)
        of_q1, of_q2, of_values = {}, {}, {}
        for name, rewards in batch.rewards.items():
            backup = rewards + batch.discounts[name] * next_values[name]
            target = np.minimum(q1[name][n_rows:], q2[name][n_rows:])
            target -= weight * of_row
            estimates = {
                "q1": q1[name][:n_rows] - backup,
                "q2": q2[name][:n_rows] - backup,
                "value": values[name] - target,
            }
            for loss, error in estimates.items():
                losses[loss] += 0.5 * share * float(np.dot(error, error))
                error *= share
            losses["policy"] -= share * float(q1[name][n_rows:].sum())
            of_q1[name] = np.concatenate([estimates["q1"], np.full(n_rows, -share, dtype=np.float32)])
            of_q2[name], of_values[name] = estimates["q2"], estimates["value"]
        missing = float(of_row.sum()) / n_rows + target_entropy
        losses["entropy_coefficients"] = -float(self._log_weight[0]) * missing
        self._found = of_q1, of_q2, of_values, weight / n_rows, missing
        return losses

    def backward(self) -> None:
        """Set the gradients of all parameters: of the actor by its own loss, of the others by the rest."""
        of_q1, of_q2, of_values, of_log_prob, missing = self._found
        self._critic.backward(of_values)
        self._q2.backward(of_q2)
        n_rows = self._gaussian.n_rows
        of_inputs = self._q1.backward(of_q1, to_inputs=True, n_learning=n_rows)
        of_actions = of_inputs[n_rows:, -self._gaussian.size :]
        self._layers.backward([self._gaussian.backward(of_actions, of_log_prob)])
        self._weight_gradient[0] = -missing
        for gradients in self._gradients:
            gradients.hand_over()


class _Values:
    """A `ValueNetwork`: from an encoding, and actions behind it, to values by stream."""

    def __init__(self, network: Any, gradients: Gradients):
        self._layers = Layers([network.network_body], gradients)
        self._heads = Heads(network.value_heads, gradients)

    def forward(self, inputs: np.ndarray) -> Dict[str, np.ndarray]:
        (features,) = self._layers.forward([inputs])
        return self._heads.forward(features)

    def backward(
        self, gradients: Dict[str, np.ndarray], to_inputs: bool = False, n_learning: Optional[int] = None
    ) -> np.ndarray:
        """See `Linear`."""
        of_features = self._heads.backward(gradients, n_learning)
        of_inputs: np.ndarray = self._layers.backward([of_features], to_inputs, n_learning)[0]
        return of_inputs


class _SquashedGaussian:
    """A `GaussianDistribution` whose standard deviations follow from what is seen, squashed by tanh."""

    def __init__(self, distribution: Any, gradients: Gradients):
        self._mean, self._log_sigma = (Linear(it, gradients) for it in (distribution.mu, distribution.log_sigma))
        self.size = self._mean.size

    @property
    def n_rows(self) -> int:
        """Of the last `forward`."""
        return len(self._actions)

    def forward(self, features: np.ndarray, noise: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return actions and their log-densities (B, C).

        :param noise: (B, C), of the standard normal distribution.
        """
        low, high = LOG_SIGMA_BOUNDS
        mean, unbounded = self._mean.forward(features), self._log_sigma.forward(features)
        log_sigma = np.minimum(np.maximum(unbounded, low), high)
        self._is_within = unbounded == log_sigma
        self._noise, self._sigma = noise, np.exp(log_sigma)
        unsquashed = mean + self._sigma * noise
        self._distance = unsquashed - mean
        self._width = 2.0 * self._sigma * self._sigma + EPSILON
        self._actions = np.tanh(unsquashed)
        return self._actions, squashed_log_densities(unsquashed, self._distance, self._sigma, self._width)

    def backward(self, of_actions: np.ndarray, of_log_prob: float) -> np.ndarray:
        """Return the gradient of the features, for those of the actions (B, C) and of each log-density.

        The distance from the mean is the noise times sigma, whatever the mean; the slope of the logarithm of tanh's
        slope is -2 tanh.
        """
        scaled = self._distance / self._width
        of_mean = of_actions * (1.0 - self._actions * self._actions)
        of_mean += 2.0 * of_log_prob * self._actions
        of_density = 4.0 * self._sigma * scaled * scaled - 2.0 * scaled * self._noise - 1.0 / (self._sigma + EPSILON)
        of_sigma = of_mean * self._noise
        of_sigma += of_log_prob * of_density
        of_sigma *= self._sigma
        of_sigma *= self._is_within
        return total([self._mean.backward(of_mean), self._log_sigma.backward(of_sigma)])
