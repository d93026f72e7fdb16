"""What SAC learns beside its actor: two Q-networks and the weights of the entropy.

Axis letters: B rows, S sequences, C continuous actions, D branches, N = sum of branch sizes, M memory size.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple, Union

from mlagents.torch_utils import nn, torch
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.networks import Encoding, ValueNetwork
from mlagents_envs.base_env import ActionSpec, ObservationSpec

Streams = Dict[str, torch.Tensor]
"""Values by reward stream."""


class PolicyValueNetwork(nn.Module):
    """Two networks that value what is done: continuous actions are their input, every choice of a branch an output.

    The smaller of two independent estimates overestimates less (Fujimoto, van Hoof and Meger, 2018, "Addressing
    function approximation error in actor-critic methods").
    """

    def __init__(
        self,
        stream_names: List[str],
        observation_specs: List[ObservationSpec],
        network_settings: NetworkSettings,
        action_spec: ActionSpec,
    ):
        super().__init__()
        sizes = action_spec.continuous_size, max(sum(action_spec.discrete_branches), 1)
        self.q1_network = ValueNetwork(stream_names, observation_specs, network_settings, *sizes)
        self.q2_network = ValueNetwork(stream_names, observation_specs, network_settings, *sizes)

    @property
    def memory_size(self) -> int:
        """The size of the memory of each of the two (M), 0 for none."""
        return self.q1_network.memory_size

    def encode(self, inputs: List[torch.Tensor]) -> Tuple[Encoding, Encoding]:
        """Return what each network makes of the observations, which `forward` takes in their place."""
        return self.q1_network.network_body.encode(inputs), self.q2_network.network_body.encode(inputs)

    def forward(
        self,
        inputs: Union[List[torch.Tensor], Tuple[Encoding, Encoding]],
        actions: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
        q1_grad: bool = True,
        q2_grad: bool = True,
    ) -> Tuple[Streams, Streams]:
        """Return what each network says by stream: (B,) without branches, else (B, N).

        :param inputs: the observations, or for each network what it made of them.
        :param actions: (B, C), squashed.
        :param memories: (1, S, M), of both networks.
        :param q1_grad: whether the first is differentiated.
        :param q2_grad: whether the second is.
        """
        q1_inputs, q2_inputs = inputs if isinstance(inputs, tuple) else (inputs, inputs)
        arguments = actions, memories, sequence_length
        with torch.set_grad_enabled(torch.is_grad_enabled() and q1_grad):
            q1_out, _ = self.q1_network(q1_inputs, *arguments)
        with torch.set_grad_enabled(torch.is_grad_enabled() and q2_grad):
            q2_out, _ = self.q2_network(q2_inputs, *arguments)
        return q1_out, q2_out


class LogEntCoef(nn.Module):
    """Logarithms of the weights of the entropy: of each branch (D,), and of all continuous actions together (1,).

    :ivar may_be_missing: read by `TorchModelSaver`: what to say where a checkpoint does not hold them.
    """

    may_be_missing = "The weights of the entropy start over from init_entcoef; ML-Agents 1.1.0 did not save them."

    def __init__(self, discrete: nn.Parameter, continuous: nn.Parameter):
        super().__init__()
        self.discrete = discrete
        self.continuous = continuous
