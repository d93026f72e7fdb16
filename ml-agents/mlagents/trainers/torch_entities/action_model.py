"""The end of an actor: from the encoding of its body to actions, continuous, discrete or both.

Axis letters: B rows, C continuous actions, D branches.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

from mlagents.torch_utils import nn, torch
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction, clip_for_environment
from mlagents.trainers.torch_entities.distributions import (
    EPSILON,
    DiscreteDistInstance,
    DistInstance,
    GaussianDistribution,
    MultiCategoricalDistribution,
)
from mlagents_envs.base_env import ActionSpec

__all__ = ["EPSILON", "ActionModel", "DistInstances", "ExportedActions"]


class DistInstances(NamedTuple):
    """The distributions of a batch; None for the kind of action that there is not."""

    continuous: Optional[DistInstance]
    discrete: Optional[List[DiscreteDistInstance]]


class ExportedActions(NamedTuple):
    """What an exported model gives out, (B, C) and int64 (B, D); None for the kind of action that there is not."""

    continuous: Optional[torch.Tensor]
    discrete: Optional[torch.Tensor]
    deterministic_continuous: Optional[torch.Tensor]
    deterministic_discrete: Optional[torch.Tensor]


class ActionModel(nn.Module):
    """Distributions over the actions of a specification.

    :param hidden_size: the width of the encoding.
    :param conditional_sigma: see `GaussianDistribution`.
    :param tanh_squash: see `GaussianDistribution`; else environments get actions clipped and scaled.
    :param deterministic: whether `forward` leaves nothing to chance.
    :raises UnityTrainerException: the specification has no actions.
    """

    def __init__(
        self,
        hidden_size: int,
        action_spec: ActionSpec,
        conditional_sigma: bool = False,
        tanh_squash: bool = False,
        deterministic: bool = False,
    ):
        super().__init__()
        if action_spec.continuous_size == 0 and action_spec.discrete_size == 0:
            raise UnityTrainerException(
                "The behavior has no actions, neither continuous nor discrete: nothing to learn."
            )
        self.encoding_size = hidden_size
        self.action_spec = action_spec
        self.clip_action = not tanh_squash
        self._deterministic = deterministic
        self._continuous_distribution: Optional[GaussianDistribution] = None
        self._discrete_distribution: Optional[MultiCategoricalDistribution] = None
        if action_spec.continuous_size > 0:
            self._continuous_distribution = GaussianDistribution(
                hidden_size, action_spec.continuous_size, conditional_sigma, tanh_squash
            )
        if action_spec.discrete_size > 0:
            self._discrete_distribution = MultiCategoricalDistribution(hidden_size, list(action_spec.discrete_branches))

    def _get_dists(self, inputs: torch.Tensor, masks: Optional[torch.Tensor]) -> DistInstances:
        gaussian, categorical = self._continuous_distribution, self._discrete_distribution
        continuous = None if gaussian is None else gaussian(inputs)
        discrete = None if categorical is None else categorical(inputs, masks)
        return DistInstances(continuous, discrete)

    def act_deterministically(self) -> None:
        """Let `forward` leave nothing to chance from now on."""
        self._deterministic = True

    def _sample_action(self, dists: DistInstances) -> AgentAction:
        def act(dist: DistInstance) -> torch.Tensor:
            return dist.deterministic_sample() if self._deterministic else dist.sample()

        continuous = None if dists.continuous is None else act(dists.continuous)
        discrete = None if dists.discrete is None else [act(branch) for branch in dists.discrete]
        return AgentAction(continuous, discrete)

    @staticmethod
    def _get_log_probs(actions: AgentAction, dists: DistInstances) -> ActionLogProbs:
        continuous, discrete, all_discrete = None, None, None
        if dists.continuous is not None:
            assert actions.continuous_tensor is not None
            continuous = dists.continuous.log_prob(actions.continuous_tensor)
        if dists.discrete is not None:
            assert actions.discrete_list is not None
            discrete = [dist.log_prob(chosen) for dist, chosen in zip(dists.discrete, actions.discrete_list)]
            all_discrete = [dist.all_log_prob() for dist in dists.discrete]
        return ActionLogProbs(continuous, discrete, all_discrete)

    @staticmethod
    def _get_entropy(dists: DistInstances) -> torch.Tensor:
        entropies = [] if dists.continuous is None else [dists.continuous.entropy()]
        entropies += [dist.entropy() for dist in dists.discrete or ()]
        entropy = entropies[0]
        for further in entropies[1:]:
            entropy = entropy + further
        return entropy

    def evaluate(
        self, inputs: torch.Tensor, masks: Optional[torch.Tensor], actions: AgentAction
    ) -> Tuple[ActionLogProbs, torch.Tensor]:
        """Return the log-probabilities of given actions, and the entropy (B,).

        :param inputs: (B, hidden_size).
        :param masks: (B, sum of branches), 1 = allowed; None allows everything.
        """
        dists = self._get_dists(inputs, masks)
        return self._get_log_probs(actions, dists), self._get_entropy(dists)

    def get_action_out(self, inputs: torch.Tensor, masks: Optional[torch.Tensor]) -> ExportedActions:
        """Return actions as an environment takes them, sampled and deterministic; arguments as of `evaluate`."""
        dists = self._get_dists(inputs, masks)
        continuous = discrete = best_continuous = best_discrete = None
        if dists.continuous is not None:
            continuous = dists.continuous.exported_model_output()
            best_continuous = dists.continuous.deterministic_sample()
            if self.clip_action:
                continuous, best_continuous = clip_for_environment(continuous), clip_for_environment(best_continuous)
        if dists.discrete is not None:
            discrete = torch.cat([dist.exported_model_output() for dist in dists.discrete], dim=1)
            best_discrete = torch.cat([dist.deterministic_sample() for dist in dists.discrete], dim=1)
        return ExportedActions(continuous, discrete, best_continuous, best_discrete)

    def forward(
        self, inputs: torch.Tensor, masks: Optional[torch.Tensor]
    ) -> Tuple[AgentAction, ActionLogProbs, torch.Tensor]:
        """Choose actions; return them, their log-probabilities and the entropy (B,); arguments as of `evaluate`."""
        dists = self._get_dists(inputs, masks)
        actions = self._sample_action(dists)
        return actions, self._get_log_probs(actions, dists), self._get_entropy(dists)

    def sample(self, inputs: torch.Tensor, masks: Optional[torch.Tensor]) -> Tuple[AgentAction, ActionLogProbs]:
        """Choose actions; return them and their log-probabilities; arguments as of `evaluate`."""
        dists = self._get_dists(inputs, masks)
        actions = self._sample_action(dists)
        return actions, self._get_log_probs(actions, dists)
