"""The arithmetic of PPO with larger networks in bare torch: what no trainer written with torch can do without.

As in `bare_ppo`: the forwards and the minibatch update on raw tensors and preallocated data, without buffers,
statistics or checks. Each class has `act`, `values` and `update`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch
from torch.nn import functional

from benchmarks.bare_ppo import BETA, EPSILON, HIDDEN, LOG_SQRT_2_PI, OBS, make_layers

Layers = List[Tuple[torch.Tensor, torch.Tensor]]


def _dense(layers: Layers, inputs: torch.Tensor) -> torch.Tensor:
    for weight, bias in layers:
        inputs = functional.silu(functional.linear(inputs, weight, bias))
    return inputs


def _ppo_loss(
    log_probs: torch.Tensor, entropy: torch.Tensor, values: torch.Tensor, data: Dict[str, torch.Tensor]
) -> torch.Tensor:
    advantages = data["advantages"].unsqueeze(1)
    ratio = torch.exp(log_probs - data["old_log_probs"])
    policy_loss = -torch.minimum(ratio * advantages, torch.clamp(ratio, 1 - EPSILON, 1 + EPSILON) * advantages).mean()
    clipped = data["old_values"] + torch.clamp(values - data["old_values"], -EPSILON, EPSILON)
    value_loss = torch.maximum((data["returns"] - values).square(), (data["returns"] - clipped).square()).mean()
    return policy_loss + 0.5 * value_loss - BETA * entropy


def _random_data(n_rows: int, n_actions: int, generator: torch.Generator) -> Dict[str, torch.Tensor]:
    data = {name: torch.randn(n_rows, generator=generator) for name in ("advantages", "old_values", "returns")}
    return {**data, "old_log_probs": torch.randn(n_rows, n_actions, generator=generator)}


class _Recurrent:
    """Dense layers, an LSTM, and a linear head."""

    def __init__(self, n_outputs: int, memory_size: int, generator: torch.Generator):
        self.layers = make_layers([OBS, HIDDEN, HIDDEN], generator)
        self.lstm = torch.nn.LSTM(HIDDEN, memory_size // 2, batch_first=True)
        self.head = make_layers([memory_size // 2, n_outputs], generator)[0]

    def __call__(self, obs: torch.Tensor, sequence_length: int) -> torch.Tensor:
        """Return the outputs for rows of sequences of that length."""
        hidden = _dense(self.layers, torch.clamp(obs, -5.0, 5.0))
        states, _ = self.lstm(hidden.reshape(-1, sequence_length, HIDDEN))
        return functional.linear(states.reshape(len(obs), -1), *self.head)

    def parameters(self) -> List[torch.Tensor]:
        """Return all of them."""
        return [it for layer in [*self.layers, self.head] for it in layer] + list(self.lstm.parameters())


class BareRecurrentPPO:
    """3DBall with memory: actor and critic each 2 x 128 and an LSTM.

    :param batch_size: a whole number of sequences.
    """

    def __init__(self, adam: str, batch_size: int, n_agents: int, sequence_length: int, memory_size: int):
        generator = torch.Generator().manual_seed(0)
        self.actor, self.critic = (_Recurrent(n_outputs, memory_size, generator) for n_outputs in (2, 1))
        self.log_sigma = torch.zeros(1, 2, requires_grad=True)
        parameters: List[Any] = [*self.actor.parameters(), *self.critic.parameters(), self.log_sigma]
        self.adam = torch.optim.Adam(parameters, lr=3e-4, fused=adam == "fused", foreach=adam == "foreach")
        self.sequence_length = sequence_length
        self.seen = torch.randn(n_agents, OBS, generator=generator)
        self.obs = torch.randn(batch_size, OBS, generator=generator)
        self.actions = torch.randn(batch_size, 2, generator=generator)
        self.data = _random_data(batch_size, 2, generator)

    def _log_probs(self, actions: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        sigma = torch.exp(self.log_sigma)
        return -((actions - mean).square() / (2 * sigma * sigma + 1e-7)) - (torch.log(sigma + 1e-7) + LOG_SQRT_2_PI)

    @torch.inference_mode()
    def act(self) -> torch.Tensor:
        """Decide for all agents; return the log-probabilities."""
        mean = self.actor(self.seen, 1)
        return self._log_probs(torch.addcmul(mean, torch.randn_like(mean), torch.exp(self.log_sigma)), mean)

    @torch.inference_mode()
    def values(self) -> torch.Tensor:
        """Return the values of a minibatch's rows."""
        return self.critic(self.obs, self.sequence_length)

    def update(self) -> None:
        """Take a gradient step on the minibatch."""
        log_probs = self._log_probs(self.actions, self.actor(self.obs, self.sequence_length))
        entropy = (torch.log(torch.exp(self.log_sigma)) + 1.4189).mean()
        loss = _ppo_loss(log_probs, entropy, self.critic(self.obs, self.sequence_length).squeeze(1), self.data)
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # in older torch
        self.adam.step()


class _Seeing:
    """Two convolutions, a dense layer, a layer that is generated from one of two goals, and a linear head."""

    def __init__(self, n_outputs: int, hidden: int, shape: Tuple[int, int, int], generator: torch.Generator):
        n_channels, height, width = shape
        self.convolutions = [torch.nn.Conv2d(n_channels, 16, 8, 4), torch.nn.Conv2d(16, 32, 4, 2)]
        n_flat = 32 * (((height - 8) // 4 + 1 - 4) // 2 + 1) * (((width - 8) // 4 + 1 - 4) // 2 + 1)
        self.dense = make_layers([n_flat, hidden], generator)[0]
        self.hyper = make_layers([2, hidden, hidden], generator)
        self.generate = make_layers([hidden, (hidden + 2) * hidden], generator)[0]
        self.bias = torch.zeros(hidden, requires_grad=True)
        self.head = make_layers([hidden, n_outputs], generator)[0]
        self.goals = torch.eye(2)

    def __call__(self, images: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return the outputs; `goal` are the indices of the rows' goals."""
        for convolution in self.convolutions:
            images = functional.leaky_relu(convolution(images))
        seen = functional.leaky_relu(functional.linear(images.flatten(1), *self.dense))
        inputs = torch.cat([seen, self.goals[goal]], dim=1)
        generated = functional.linear(
            functional.layer_norm(_dense(self.hyper, self.goals), (self.bias.shape[0],)), *self.generate
        )
        by_goal = torch.matmul(inputs, generated.reshape(2, inputs.shape[1], -1))
        return functional.linear(functional.silu(by_goal[goal, torch.arange(len(goal))] + self.bias), *self.head)

    def parameters(self) -> List[torch.Tensor]:
        """Return all of them."""
        layers = [self.dense, *self.hyper, self.generate, self.head]
        convolutions = [it for convolution in self.convolutions for it in convolution.parameters()]
        return [it for layer in layers for it in layer] + convolutions + [self.bias]


class BareGridPPO:
    """GridWorld: actor and critic each with the encoder `simple` and a layer that the goal conditions."""

    def __init__(self, adam: str, batch_size: int, n_agents: int, hidden: int, shape: Tuple[int, int, int]):
        generator = torch.Generator().manual_seed(0)
        self.actor, self.critic = (_Seeing(n_outputs, hidden, shape, generator) for n_outputs in (5, 1))
        parameters: List[Any] = [*self.actor.parameters(), *self.critic.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=3e-4, fused=adam == "fused", foreach=adam == "foreach")
        self.n_agents = n_agents
        self.images = torch.rand(batch_size, *shape, generator=generator)
        self.goal = torch.randint(2, (batch_size,), generator=generator)
        self.allowed = torch.ones(batch_size, 5)
        self.choices = torch.randint(5, (batch_size, 1), generator=generator)
        self.data = _random_data(batch_size, 1, generator)

    def _probabilities(self, n_rows: int) -> torch.Tensor:
        logits = self.actor(self.images[:n_rows], self.goal[:n_rows])
        allowed = self.allowed[:n_rows]
        return torch.softmax(logits * allowed - 1e8 * (1 - allowed), dim=1)

    @torch.inference_mode()
    def act(self) -> torch.Tensor:
        """Decide for all agents; return the log-probabilities."""
        probabilities = self._probabilities(self.n_agents)
        choices = torch.argmax(probabilities / torch.empty_like(probabilities).exponential_(), dim=1, keepdim=True)
        return torch.log(probabilities + 1e-7).gather(1, choices)

    @torch.inference_mode()
    def values(self) -> torch.Tensor:
        """Return the values of a minibatch's rows."""
        return self.critic(self.images, self.goal)

    def update(self) -> None:
        """Take a gradient step on the minibatch."""
        probabilities = self._probabilities(len(self.goal))
        all_log_probs = torch.log(probabilities + 1e-7)
        entropy = -(probabilities * all_log_probs).sum(dim=1).mean()
        values = self.critic(self.images, self.goal).squeeze(1)
        loss = _ppo_loss(all_log_probs.gather(1, self.choices), entropy, values, self.data)
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # in older torch
        self.adam.step()
