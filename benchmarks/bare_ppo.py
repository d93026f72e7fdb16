"""The arithmetic of PPO on a small task in bare torch: what no trainer written with torch can do without.

The forwards and the minibatch update are those of `mlagents.trainers.ppo` with `config/ppo/3DBall.yaml`, on raw
parameter tensors and preallocated data, without modules, buffers, statistics or checks.
"""

from __future__ import annotations

import itertools
import math
from typing import List, Tuple

import torch
from torch.nn import functional

OBS, HIDDEN, ACTIONS = 8, 128, 2
EPSILON, BETA = 0.2, 0.001
ROWS_PER_VALUE_PASS = 256
LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


class BarePPO:
    """Actor and critic, 2 x 128 with swish, and one Adam.

    :param adam: "fused" or "foreach": which of torch's implementations takes the steps.
    :param n_choices: of a discrete action; 0 for two continuous ones, and observations that are normalised.
    """

    def __init__(self, adam: str, batch_size: int = 64, n_agents: int = 12, obs_size: int = OBS, n_choices: int = 0):
        generator = torch.Generator().manual_seed(0)
        self.n_choices = n_choices
        self.actor = make_layers([obs_size, HIDDEN, HIDDEN, n_choices or ACTIONS], generator)
        self.critic = make_layers([obs_size, HIDDEN, HIDDEN, 1], generator)
        parameters = [tensor for layer in self.actor + self.critic for tensor in layer]
        if not n_choices:
            self.log_sigma = torch.zeros(1, ACTIONS, requires_grad=True)
            parameters.append(self.log_sigma)
        self.adam = torch.optim.Adam(parameters, lr=3e-4, fused=adam == "fused", foreach=adam == "foreach")
        self.mean, self.deviation = torch.zeros(obs_size), torch.ones(obs_size)
        self.seen = torch.randn(n_agents, obs_size, generator=generator)
        self.collected = torch.randn(ROWS_PER_VALUE_PASS, obs_size, generator=generator)
        self.obs = torch.randn(batch_size, obs_size, generator=generator)
        self.actions = torch.randn(batch_size, ACTIONS, generator=generator)
        self.choices = torch.randint(n_choices or 1, (batch_size, 1), generator=generator)
        self.old_log_probs = torch.randn(batch_size, 1 if n_choices else ACTIONS, generator=generator)
        self.advantages = torch.randn(batch_size, generator=generator)
        self.returns = torch.randn(batch_size, generator=generator)
        self.old_values = torch.randn(batch_size, generator=generator)

    def _forward(self, layers: List[Tuple[torch.Tensor, torch.Tensor]], obs: torch.Tensor) -> torch.Tensor:
        hidden = obs if self.n_choices else torch.clamp((obs - self.mean) / self.deviation, -5.0, 5.0)
        for weight, bias in layers[:-1]:
            hidden = functional.silu(functional.linear(hidden, weight, bias))
        return functional.linear(hidden, *layers[-1])

    def _log_probs(self, actions: torch.Tensor, mean: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        sigma = torch.exp(self.log_sigma)
        variance = sigma * sigma
        log_probs = -((actions - mean).square() / (2 * variance + 1e-7)) - (torch.log(sigma + 1e-7) + LOG_SQRT_2_PI)
        return log_probs, 0.5 * torch.log(2 * math.pi * math.e * variance + 1e-7)

    def _log_probs_of_choices(self, logits: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        probabilities = torch.softmax(logits, dim=1)
        log_probs = torch.log(probabilities + 1e-7)
        return log_probs, -(probabilities * log_probs).sum(dim=1)

    @torch.inference_mode()
    def act(self) -> Tuple[torch.Tensor, torch.Tensor]:
        """Decide for all agents; return actions as the environment takes them, and their log-probabilities."""
        outputs = self._forward(self.actor, self.seen)
        if self.n_choices:
            log_probs, _ = self._log_probs_of_choices(outputs)
            clocks = torch.empty_like(outputs).exponential_()
            choices = torch.argmax(log_probs.exp() / clocks, dim=1, keepdim=True)
            return choices, log_probs.gather(1, choices)
        actions = torch.addcmul(outputs, torch.randn_like(outputs), torch.exp(self.log_sigma))
        return torch.clamp(actions, -3.0, 3.0) / 3.0, self._log_probs(actions, outputs)[0]

    @torch.inference_mode()
    def values(self) -> torch.Tensor:
        """Return the values of `ROWS_PER_VALUE_PASS` rows."""
        return self._forward(self.critic, self.collected).squeeze(1)

    def update(self) -> None:
        """Take a gradient step on the minibatch."""
        outputs = self._forward(self.actor, self.obs)
        if self.n_choices:
            all_log_probs, entropy = self._log_probs_of_choices(outputs)
            log_probs = all_log_probs.gather(1, self.choices)
        else:
            log_probs, entropy = self._log_probs(self.actions, outputs)
        values = self._forward(self.critic, self.obs).squeeze(1)
        advantages = self.advantages.unsqueeze(1)
        ratio = torch.exp(log_probs - self.old_log_probs)
        policy_loss = -torch.minimum(
            ratio * advantages, torch.clamp(ratio, 1 - EPSILON, 1 + EPSILON) * advantages
        ).mean()
        clipped = self.old_values + torch.clamp(values - self.old_values, -EPSILON, EPSILON)
        value_loss = torch.maximum((self.returns - values).square(), (self.returns - clipped).square()).mean()
        loss = policy_loss + 0.5 * value_loss - BETA * entropy.mean()
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # in older torch
        self.adam.step()


def make_layers(sizes: List[int], generator: torch.Generator) -> List[Tuple[torch.Tensor, torch.Tensor]]:
    """Return weights and biases of linear layers between such sizes."""
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        weight = torch.randn(n_out, n_in, generator=generator) / math.sqrt(n_in)
        layers.append((weight.requires_grad_(), torch.zeros(n_out, requires_grad=True)))
    return layers
