"""The arithmetic of an update of SAC on a small continuous task in bare torch: what no learner in torch can save.

The losses are those of `mlagents.trainers.sac` with the networks of `config/sac/3DBall.yaml`, on raw parameter tensors
and preallocated data, without modules, buffers, statistics or checks. Observations are normalised once for all of
them.
"""

from __future__ import annotations

import math
from typing import Dict, List, Tuple

import torch
from torch.nn import functional

from benchmarks.bare_ppo import LOG_SQRT_2_PI, make_layers

OBS, HIDDEN, ACTIONS = 8, 128, 2
GAMMA, TAU = 0.99, 0.005

Layers = List[Tuple[torch.Tensor, torch.Tensor]]


class BareSAC:
    """Actor, two Q-networks, value and target, each of two layers with swish, the entropy's weight, and three Adams.

    :param adam: "fused" or "foreach": which of torch's implementations takes the steps.
    """

    def __init__(
        self,
        adam: str,
        batch_size: int,
        n_agents: int = 12,
        obs_size: int = OBS,
        n_actions: int = ACTIONS,
        hidden: int = HIDDEN,
    ):
        generator = torch.Generator().manual_seed(0)
        self.n_actions = n_actions
        self.seen = torch.randn(n_agents, obs_size, generator=generator)
        self.actor = make_layers([obs_size, hidden, hidden], generator)
        self.mean, self.log_sigma = (make_layers([hidden, n_actions], generator)[0] for _ in range(2))
        self.q1, self.q2 = (make_layers([obs_size + n_actions, hidden, hidden, 1], generator) for _ in range(2))
        self.value = make_layers([obs_size, hidden, hidden, 1], generator)
        self.target = [(weight.detach().clone(), bias.detach().clone()) for weight, bias in self.value]
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.actor_parameters = _flat([*self.actor, self.mean, self.log_sigma])
        self.adams = [
            torch.optim.Adam(parameters, lr=3e-4, fused=adam == "fused", foreach=adam == "foreach")
            for parameters in (self.actor_parameters, _flat([*self.q1, *self.q2, *self.value]), [self.log_alpha])
        ]
        self.shift, self.deviation = torch.zeros(obs_size), torch.ones(obs_size)
        self.data: Dict[str, torch.Tensor] = {
            "obs": torch.randn(batch_size, obs_size, generator=generator),
            "next_obs": torch.randn(batch_size, obs_size, generator=generator),
            "actions": torch.rand(batch_size, n_actions, generator=generator) * 2 - 1,
            "rewards": torch.randn(batch_size, generator=generator),
            "dones": torch.zeros(batch_size),
        }

    @torch.inference_mode()
    def act(self) -> torch.Tensor:
        """Decide for all agents."""
        return self._act(self.seen)[0]

    def update(self) -> None:
        """Take the three gradient steps on the minibatch, and move the target."""
        data = self.data
        obs, next_obs = (
            torch.clamp((data[name] - self.shift) / self.deviation, -5.0, 5.0) for name in ("obs", "next_obs")
        )
        actions, log_probs = self._act(obs)
        q1_fresh = _evaluate(self.q1, torch.cat([obs, actions], dim=1))
        with torch.no_grad():
            alpha = torch.exp(self.log_alpha)
            q2_fresh = _evaluate(self.q2, torch.cat([obs, actions], dim=1))
            value_target = torch.minimum(q1_fresh, q2_fresh) - alpha * log_probs
            backup = data["rewards"] + (1 - data["dones"]) * GAMMA * _evaluate(self.target, next_obs)
            missing = log_probs - self.n_actions
        taken = torch.cat([obs, data["actions"]], dim=1)
        q_loss = 0.5 * (_evaluate(self.q1, taken) - backup).square().mean()
        q_loss = q_loss + 0.5 * (_evaluate(self.q2, taken) - backup).square().mean()
        value_loss = 0.5 * (_evaluate(self.value, obs) - value_target).square().mean()
        policy_loss = (alpha * log_probs - q1_fresh).mean()
        for adam in self.adams:
            adam.zero_grad()
        policy_loss.backward(inputs=self.actor_parameters)  # type: ignore[no-untyped-call]  # in older torch
        (q_loss + value_loss - (self.log_alpha * missing).mean()).backward()  # type: ignore[no-untyped-call]
        for adam in self.adams:
            adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(_flat(self.target), _flat(self.value), TAU)

    def _act(self, obs: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return squashed samples and their log-densities."""
        hidden = obs
        for weight, bias in self.actor:
            hidden = functional.silu(functional.linear(hidden, weight, bias))
        mean = functional.linear(hidden, *self.mean)
        sigma = torch.exp(torch.clamp(functional.linear(hidden, *self.log_sigma), -20.0, 2.0))
        unsquashed = torch.addcmul(mean, torch.randn_like(mean), sigma)
        log_probs = -((unsquashed - mean).square() / (2 * sigma * sigma + 1e-7)) - (
            torch.log(sigma + 1e-7) + LOG_SQRT_2_PI
        )
        log_slope = 2 * (math.log(2) - unsquashed - functional.softplus(-2 * unsquashed))
        return torch.tanh(unsquashed), (log_probs - log_slope).sum(dim=1)


def _evaluate(layers: Layers, inputs: torch.Tensor) -> torch.Tensor:
    for weight, bias in layers[:-1]:
        inputs = functional.silu(functional.linear(inputs, weight, bias))
    return functional.linear(inputs, *layers[-1]).squeeze(1)


def _flat(layers: Layers) -> List[torch.Tensor]:
    return [tensor for layer in layers for tensor in layer]
