"""Networks: bodies, actors and critics.

Axis letters: B rows, S sequences of T steps (B = S * T), M memory size. Observations come as a list of (B, *shape),
masks as (B, sum of branches) with 1 = allowed, memories as (1, S, M).
"""

from __future__ import annotations

import abc
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from mlagents.torch_utils import nn, torch
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.settings import ConditioningType, NetworkSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.action_model import ActionModel
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.conditioning import ConditionalEncoder
from mlagents.trainers.torch_entities.decoders import ValueHeads
from mlagents.trainers.torch_entities.layers import LSTM, LinearEncoder
from mlagents.trainers.torch_entities.observation_encoder import ObservationEncoder
from mlagents_envs.base_env import ActionSpec, ObservationSpec


class Encoding(NamedTuple):
    """Observations as they enter the layers of a body; see `NetworkBody.encode`.

    :param joint: of all observations (B, size).
    :param goals: of those that are goals, (B, size), where these condition the body.
    """

    joint: torch.Tensor
    goals: Tuple[torch.Tensor, ...] = ()


class NetworkBody(nn.Module):
    """Everything of a network before its heads: observations, and on request actions, to features.

    With `goal_conditioning_type: hyper` the last layer is generated from the observations that are goals.

    :param encoded_act_size: the width of the actions that `forward` gets.
    :ivar h_size: the hidden units of each layer.
    :raises UnityTrainerException: there is no encoder for one of the observations.
    """

    def __init__(
        self,
        observation_specs: List[ObservationSpec],
        network_settings: NetworkSettings,
        encoded_act_size: int = 0,
    ):
        super().__init__()
        self.normalize = network_settings.normalize
        self.use_lstm = network_settings.memory is not None
        self.h_size = network_settings.hidden_units
        self.m_size = network_settings.memory.memory_size if network_settings.memory is not None else 0
        self.observation_encoder = ObservationEncoder(
            observation_specs, self.h_size, network_settings.vis_encode_type, self.normalize
        )
        # The same modules once more: checkpoints hold their state under both names.
        self.processors = self.observation_encoder.processors
        # Misspelt in every checkpoint of ML-Agents 1.1.0, so here too: then they load as they are.
        input_size = self.observation_encoder.total_enc_size + encoded_act_size
        goal_size, n_layers = self.observation_encoder.total_goal_enc_size, network_settings.num_layers
        self._is_conditional = goal_size > 0 and network_settings.goal_conditioning_type is ConditioningType.HYPER
        self._body_endoder: Union[LinearEncoder, ConditionalEncoder]
        if self._is_conditional:
            self._body_endoder = ConditionalEncoder(input_size, goal_size, self.h_size, n_layers, 1)
        else:
            self._body_endoder = LinearEncoder(input_size, n_layers, self.h_size)
        self.lstm: Optional[LSTM] = LSTM(self.h_size, self.m_size) if self.use_lstm else None

    @property
    def memory_size(self) -> int:
        """The size of an agent's memory (M), 0 for none."""
        return 0 if self.lstm is None else self.lstm.memory_size

    @property
    def encoding_size(self) -> int:
        """The width of the features: half the memory where there is one, else `h_size`."""
        return self.h_size if self.lstm is None else self.lstm.memory_size // 2

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        self.observation_encoder.update_normalization(buffer)

    def copy_normalization(self, other_network: NetworkBody) -> None:
        """Take over the statistics of a body of the same observations."""
        self.observation_encoder.copy_normalization(other_network.observation_encoder)

    def encode(self, inputs: List[torch.Tensor]) -> Encoding:
        """Return what `forward` takes in the place of the observations, so that they are encoded once for two calls."""
        if self._is_conditional:
            joint, goals = self.observation_encoder.with_goals(inputs)
            return Encoding(joint, (goals,))
        return Encoding(self.observation_encoder(inputs))

    def forward(
        self,
        inputs: Union[List[torch.Tensor], Encoding],
        actions: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """Return features (B, encoding_size) and the new memories.

        :param inputs: the observations, or what `encode` made of them.
        :param actions: (B, encoded_act_size).
        :param memories: before the first step of each sequence; a body that has a memory needs them.
        :param sequence_length: T; row s * T + t is step t of sequence s.
        """
        encoding, goals = inputs if isinstance(inputs, Encoding) else self.encode(inputs)
        if actions is not None:
            encoding = torch.cat([encoding, actions], dim=1)
        encoding = self._body_endoder(encoding, *goals)
        if self.lstm is None:
            return encoding, memories
        if memories is None:
            raise UnityTrainerException("A network with a memory was evaluated without memories.")
        sequences = encoding.reshape(-1, sequence_length, self.h_size)
        output, memories = self.lstm(sequences, memories)
        return output.reshape(-1, self.encoding_size), memories


class Critic(abc.ABC):
    """What an optimizer needs of a network that estimates values."""

    @abc.abstractmethod
    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""

    def critic_pass(
        self,
        inputs: List[torch.Tensor],
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[Dict[str, torch.Tensor], Optional[torch.Tensor]]:
        """Return the values (B,) of each reward stream, and the new memories."""
        raise NotImplementedError(f"{type(self).__name__} does not estimate values.")


class ValueNetwork(nn.Module, Critic):
    """A body with value heads.

    :param stream_names: names of the reward streams.
    :param encoded_act_size: the width of the actions that `forward` gets.
    :param outputs_per_stream: values per stream.
    """

    def __init__(
        self,
        stream_names: List[str],
        observation_specs: List[ObservationSpec],
        network_settings: NetworkSettings,
        encoded_act_size: int = 0,
        outputs_per_stream: int = 1,
    ):
        super().__init__()
        self.network_body = NetworkBody(observation_specs, network_settings, encoded_act_size)
        self.value_heads = ValueHeads(stream_names, self.network_body.encoding_size, outputs_per_stream)

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        self.network_body.update_normalization(buffer)

    @property
    def memory_size(self) -> int:
        """The size of an agent's memory (M), 0 for none."""
        return self.network_body.memory_size

    def critic_pass(
        self,
        inputs: Union[List[torch.Tensor], Encoding],
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[Dict[str, torch.Tensor], Optional[torch.Tensor]]:
        """Return the values (B,) of each reward stream, and the new memories."""
        return self.forward(inputs, memories=memories, sequence_length=sequence_length)

    def forward(
        self,
        inputs: Union[List[torch.Tensor], Encoding],
        actions: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[Dict[str, torch.Tensor], Optional[torch.Tensor]]:
        """Return the values of each reward stream, (B,) or (B, outputs_per_stream), and the new memories."""
        encoding, memories = self.network_body(inputs, actions, memories, sequence_length)
        return self.value_heads(encoding), memories


class Actor(abc.ABC):
    """What a policy and an optimizer need of a network that acts."""

    @abc.abstractmethod
    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""

    def get_action_and_stats(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[AgentAction, Dict[str, Any], Optional[torch.Tensor]]:
        """Choose actions.

        :return: the actions; `env_action` (an `ActionTuple` as the environment takes it), `log_probs`
            (`ActionLogProbs`) and `entropy` (B,); and the new memories.
        """
        raise NotImplementedError(f"{type(self).__name__} does not choose actions.")

    def sample_actions(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[AgentAction, ActionLogProbs]:
        """Choose actions for a loss to be made of: what `get_action_and_stats` does, without what that has no use for.

        :return: the actions and their log-probabilities.
        """
        actions, run_out, _ = self.get_action_and_stats(inputs, masks, memories, sequence_length)
        return actions, run_out["log_probs"]

    def get_stats(
        self,
        inputs: List[torch.Tensor],
        actions: AgentAction,
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Dict[str, Any]:
        """Return `log_probs` (`ActionLogProbs`) of given actions, and `entropy` (B,)."""
        raise NotImplementedError(f"{type(self).__name__} does not evaluate actions.")

    def act_deterministically(self) -> None:  # noqa: B027  # may stay as it is
        """Choose the best actions from now on; nothing to do for an actor that leaves nothing to chance."""

    @abc.abstractmethod
    def forward(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
    ) -> Tuple[Union[int, torch.Tensor], ...]:
        """Return the outputs of the exported model, in the order of `ModelSerializer.output_names`."""


class SimpleActor(nn.Module, Actor):
    """A body with an `ActionModel`.

    Its constants are parameters, in this order, because checkpoints hold them and Adam's state counts them.
    """

    MODEL_EXPORT_VERSION = 3  # of the tensors of an exported model, as Unity's importer checks it

    def __init__(
        self,
        observation_specs: List[ObservationSpec],
        network_settings: NetworkSettings,
        action_spec: ActionSpec,
        conditional_sigma: bool = False,
        tanh_squash: bool = False,
    ):
        super().__init__()
        self.action_spec = action_spec
        continuous_size, branches = action_spec.continuous_size, list(action_spec.discrete_branches)
        self.version_number = _constant([self.MODEL_EXPORT_VERSION])
        self.is_continuous_int_deprecated = _constant([int(action_spec.is_continuous())])
        self.continuous_act_size_vector = _constant([continuous_size])
        self.discrete_act_size_vector = _constant([branches])
        self.act_size_vector_deprecated = _constant([continuous_size + sum(branches)])
        self.network_body = NetworkBody(observation_specs, network_settings)
        self.memory_size_vector = _constant([self.network_body.memory_size])
        self.encoding_size = self.network_body.encoding_size
        self.action_model = ActionModel(
            self.encoding_size, action_spec, conditional_sigma, tanh_squash, network_settings.deterministic
        )

    @property
    def memory_size(self) -> int:
        """The size of an agent's memory (M), 0 for none."""
        return self.network_body.memory_size

    def update_normalization(self, buffer: AgentBuffer) -> None:
        """Take the observations of a trajectory into the statistics of normalised vectors."""
        self.network_body.update_normalization(buffer)

    def act_deterministically(self) -> None:
        """Choose the most likely actions from now on."""
        self.action_model.act_deterministically()

    def get_action_and_stats(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[AgentAction, Dict[str, Any], Optional[torch.Tensor]]:
        """Choose actions; see `Actor`."""
        encoding, memories = self.network_body(inputs, memories=memories, sequence_length=sequence_length)
        action, log_probs, entropy = self.action_model(encoding, masks)
        run_out = {
            "env_action": action.to_action_tuple(clip=self.action_model.clip_action),
            "log_probs": log_probs,
            "entropy": entropy,
        }
        return action, run_out, memories

    def sample_actions(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[AgentAction, ActionLogProbs]:
        """Choose actions for a loss; see `Actor`."""
        acts_otherwise = type(self).get_action_and_stats is not SimpleActor.get_action_and_stats
        if acts_otherwise or type(self.action_model) is not ActionModel:
            return super().sample_actions(inputs, masks, memories, sequence_length)
        encoding, _ = self.network_body(inputs, memories=memories, sequence_length=sequence_length)
        return self.action_model.sample(encoding, masks)

    def get_stats(
        self,
        inputs: List[torch.Tensor],
        actions: AgentAction,
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Dict[str, Any]:
        """Return `log_probs` and `entropy` of given actions; see `Actor`."""
        encoding, _ = self.network_body(inputs, memories=memories, sequence_length=sequence_length)
        log_probs, entropy = self.action_model.evaluate(encoding, masks, actions)
        return {"log_probs": log_probs, "entropy": entropy}

    def forward(
        self,
        inputs: List[torch.Tensor],
        masks: Optional[torch.Tensor] = None,
        memories: Optional[torch.Tensor] = None,
    ) -> Tuple[Union[int, torch.Tensor], ...]:
        """Return the outputs of the exported model; see `Actor`."""
        encoding, memories = self.network_body(inputs, memories=memories)
        actions = self.action_model.get_action_out(encoding, masks)
        outputs: List[Any] = [self.version_number, self.memory_size_vector]
        if actions.continuous is not None:
            outputs += [actions.continuous, self.continuous_act_size_vector, actions.deterministic_continuous]
        if actions.discrete is not None:
            outputs += [actions.discrete, self.discrete_act_size_vector, actions.deterministic_discrete]
        if self.network_body.memory_size > 0:
            outputs.append(memories)
        return tuple(outputs)


class SharedActorCritic(SimpleActor, Critic):
    """An actor whose body has value heads too.

    :param stream_names: names of the reward streams.
    """

    def __init__(
        self,
        observation_specs: List[ObservationSpec],
        network_settings: NetworkSettings,
        action_spec: ActionSpec,
        stream_names: List[str],
        conditional_sigma: bool = False,
        tanh_squash: bool = False,
    ):
        super().__init__(observation_specs, network_settings, action_spec, conditional_sigma, tanh_squash)
        self.use_lstm = self.network_body.use_lstm
        self.stream_names = stream_names
        self.value_heads = ValueHeads(stream_names, self.encoding_size)

    def critic_pass(
        self,
        inputs: List[torch.Tensor],
        memories: Optional[torch.Tensor] = None,
        sequence_length: int = 1,
    ) -> Tuple[Dict[str, torch.Tensor], Optional[torch.Tensor]]:
        """Return the values (B,) of each reward stream, and the new memories."""
        encoding, memories = self.network_body(inputs, memories=memories, sequence_length=sequence_length)
        return self.value_heads(encoding), memories


class GlobalSteps(nn.Module):
    """The steps that agents of a behaviour have taken in training, kept with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.__global_step = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)

    @property
    def current_step(self) -> torch.Tensor:
        """The steps so far, int64 (1,)."""
        return self._parameters["_GlobalSteps__global_step"]  # type: ignore[return-value]  # asked for all the time

    @current_step.setter
    def current_step(self, value: int) -> None:
        self.current_step.fill_(value)

    def increment(self, value: int) -> None:
        """Add `value` steps."""
        steps = self.current_step
        if steps.is_cpu:
            steps.numpy()[0] += value  # torch's own addition took three times as long in trainings
        else:
            steps.add_(value)


class LearningRate(nn.Module):
    """A learning rate that is kept with the weights."""

    def __init__(self, lr: float):
        super().__init__()
        self.learning_rate = nn.Parameter(torch.tensor([lr]), requires_grad=False)


def _constant(values: List[Any]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)
