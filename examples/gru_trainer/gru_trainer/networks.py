"""An actor and a critic that remember by a gated recurrent unit.

Source: Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine translation
(2014). Axis letters: B rows, S sequences of T steps (B = S * T), M memory size.
"""

from __future__ import annotations

from typing import Any

from mlagents.torch_utils import nn, torch
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.decoders import ValueHeads
from mlagents.trainers.torch_entities.model_serialization import exporting_to_onnx
from mlagents.trainers.torch_entities.networks import Actor, Critic, ObservationEncoder
from mlagents_envs.base_env import ActionSpec, ObservationSpec

MODEL_EXPORT_VERSION = 3.0
"""Of the tensors of an exported model, as Unity checks it."""


class GRUBody(nn.Module):
    """From observations to features, by way of what is remembered: both are the unit's hidden state.

    :param network_settings: with `memory`.
    """

    def __init__(self, observation_specs: list[ObservationSpec], network_settings: NetworkSettings):
        super().__init__()
        assert network_settings.memory is not None
        self.memory_size = network_settings.memory.memory_size
        self.encoder = ObservationEncoder(
            observation_specs,
            network_settings.hidden_units,
            network_settings.vis_encode_type,
            network_settings.normalize,
        )
        self.gru = nn.GRU(self.encoder.total_enc_size, self.memory_size, batch_first=True)

    def forward(
        self, inputs: list[torch.Tensor], memories: torch.Tensor, sequence_length: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, M) and the new memories.

        :param memories: (1, S, M), before the first step of each sequence. In an exported model (S, 1, M), since there
            every tensor has its batch first.
        :param sequence_length: T; row s * T + t is step t of sequence s.
        """
        encoding = self.encoder(inputs)
        if exporting_to_onnx.is_exporting():
            memories = memories.transpose(0, 1)
        output, memories = self.gru(encoding.reshape(-1, sequence_length, encoding.shape[1]), memories.contiguous())
        if exporting_to_onnx.is_exporting():
            memories = memories.transpose(0, 1)
        return output.reshape(-1, self.memory_size), memories


class GRUActor(nn.Module, Actor):
    """A policy's network: the methods of `Actor`, on a body of its own and the toolkit's distributions."""

    def __init__(
        self,
        observation_specs: list[ObservationSpec],
        network_settings: NetworkSettings,
        action_spec: ActionSpec,
        conditional_sigma: bool = False,
        tanh_squash: bool = False,
    ):
        super().__init__()
        self.body = GRUBody(observation_specs, network_settings)
        self.action_model = ActionModel(
            self.body.memory_size, action_spec, conditional_sigma, tanh_squash, network_settings.deterministic
        )
        # What an exported model says about itself.
        self.register_buffer("version_number", torch.tensor([MODEL_EXPORT_VERSION]))
        self.register_buffer("memory_size_vector", torch.tensor([float(self.body.memory_size)]))
        self.register_buffer("continuous_size_vector", torch.tensor([float(action_spec.continuous_size)]))
        self.register_buffer("discrete_size_vector", torch.tensor([list(map(float, action_spec.discrete_branches))]))

    @property
    def memory_size(self) -> int:
        """The size of an agent's memory (M)."""
        return self.body.memory_size

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        self.body.encoder.update_normalization(buffer)

    def get_action_and_stats(
        self,
        inputs: list[torch.Tensor],
        masks: torch.Tensor | None = None,
        memories: torch.Tensor | None = None,
        sequence_length: int = 1,
    ) -> tuple[AgentAction, dict[str, Any], torch.Tensor | None]:
        """Choose actions: when agents act, one row for each."""
        features, memories = self.body(inputs, memories, sequence_length)
        action, log_probs, entropy = self.action_model(features, masks)
        env_action = action.to_action_tuple(clip=self.action_model.clip_action)
        return action, {"env_action": env_action, "log_probs": log_probs, "entropy": entropy}, memories

    def get_stats(
        self,
        inputs: list[torch.Tensor],
        actions: AgentAction,
        masks: torch.Tensor | None = None,
        memories: torch.Tensor | None = None,
        sequence_length: int = 1,
    ) -> dict[str, Any]:
        """Return `log_probs` and `entropy` of given actions: when the optimizer learns, in sequences."""
        features, _ = self.body(inputs, memories, sequence_length)
        log_probs, entropy = self.action_model.evaluate(features, masks, actions)
        return {"log_probs": log_probs, "entropy": entropy}

    def forward(
        self,
        inputs: list[torch.Tensor],
        masks: torch.Tensor | None = None,
        memories: torch.Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Return the outputs of the exported model, in the order of `ModelSerializer.output_names`."""
        features, memories = self.body(inputs, memories)
        actions = self.action_model.get_action_out(features, masks)
        outputs: list[Any] = [self.version_number, self.memory_size_vector]
        if actions.continuous is not None:
            outputs += [actions.continuous, self.continuous_size_vector, actions.deterministic_continuous]
        if actions.discrete is not None:
            outputs += [actions.discrete, self.discrete_size_vector, actions.deterministic_discrete]
        return (*outputs, memories)


class GRUCritic(nn.Module, Critic):
    """A value network with a memory of its own, beside the actor's."""

    def __init__(
        self, stream_names: list[str], observation_specs: list[ObservationSpec], network_settings: NetworkSettings
    ):
        super().__init__()
        self.body = GRUBody(observation_specs, network_settings)
        self.value_heads = ValueHeads(stream_names, self.body.memory_size)

    @property
    def memory_size(self) -> int:
        """The size of an agent's memory (M)."""
        return self.body.memory_size

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        self.body.encoder.update_normalization(buffer)

    def critic_pass(
        self, inputs: list[torch.Tensor], memories: torch.Tensor | None = None, sequence_length: int = 1
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Return the values (B,) of each reward stream, and the new memories."""
        features, memories = self.body(inputs, memories, sequence_length)
        return self.value_heads(features), memories
