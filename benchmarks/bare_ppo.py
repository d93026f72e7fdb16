"""The arithmetic of PPO on a small continuous task in bare torch: what no trainer written with torch can do without.

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
LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


class BarePPO:
    """Actor and critic, 2 x 128 with swish, and one Adam.

    :param adam: "fused" or "foreach": which of torch's implementations takes the steps.
    """

    def __init__(self, adam: str, batch_size: int):
        generator = torch.Generator().manual_seed(0)
        self.actor = make_layers([OBS, HIDDEN, HIDDEN, ACTIONS], generator)
        self.critic = make_layers([OBS, HIDDEN, HIDDEN, 1], generator)
        self.log_sigma = torch.zeros(1, ACTIONS, requires_grad=True)
        parameters = [tensor for layer in self.actor + self.critic for tensor in layer] + [self.log_sigma]
        self.adam = torch.optim.Adam(parameters, lr=3e-4, fused=adam == "fused", foreach=adam == "foreach")
        self.mean, self.deviation = torch.zeros(OBS), torch.ones(OBS)
        self.obs = torch.randn(batch_size, OBS, generator=generator)
        self.actions = torch.randn(batch_size, ACTIONS, generator=generator)
        self.old_log_probs = torch.randn(batch_size, ACTIONS, generator=generator)
        self.advantages = torch.randn(batch_size, generator=generator)
        self.returns = torch.randn(batch_size, generator=generator)
        self.old_values = torch.randn(batch_size, generator=generator)

    def _forward(self, layers: List[Tuple[torch.Tensor, torch.Tensor]], obs: torch.Tensor) -> torch.Tensor:
        hidden = torch.clamp((obs - self.mean) / self.deviation, -5.0, 5.0)
        for weight, bias in layers[:-1]:
            hidden = functional.silu(functional.linear(hidden, weight, bias))
        return functional.linear(hidden, *layers[-1])

    def _log_probs(self, actions: torch.Tensor, mean: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        sigma = torch.exp(self.log_sigma)
        variance = sigma * sigma
        log_probs = -((actions - mean).square() / (2 * variance + 1e-7)) - (torch.log(sigma + 1e-7) + LOG_SQRT_2_PI)
        return log_probs, variance

    @torch.inference_mode()
    def act(self, obs: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return sampled actions, as stored and as the environment takes them, and their log-probabilities."""
        mean = self._forward(self.actor, obs)
        actions = torch.addcmul(mean, torch.randn_like(mean), torch.exp(self.log_sigma))
        log_probs, _ = self._log_probs(actions, mean)
        return actions, torch.clamp(actions, -3.0, 3.0) / 3.0, log_probs

    @torch.inference_mode()
    def values(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the values of a trajectory."""
        return self._forward(self.critic, obs).squeeze(1)

    def update(self) -> None:
        """Take a gradient step on the minibatch."""
        mean = self._forward(self.actor, self.obs)
        log_probs, variance = self._log_probs(self.actions, mean)
        entropy = (0.5 * torch.log(2 * math.pi * math.e * variance + 1e-7)).mean()
        values = self._forward(self.critic, self.obs).squeeze(1)
        advantages = self.advantages.unsqueeze(1)
        ratio = torch.exp(log_probs - self.old_log_probs)
        policy_loss = -torch.minimum(
            ratio * advantages, torch.clamp(ratio, 1 - EPSILON, 1 + EPSILON) * advantages
        ).mean()
        clipped = self.old_values + torch.clamp(values - self.old_values, -EPSILON, EPSILON)
        value_loss = torch.maximum((self.returns - values).square(), (self.returns - clipped).square()).mean()
        loss = policy_loss + 0.5 * value_loss - BETA * entropy
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
