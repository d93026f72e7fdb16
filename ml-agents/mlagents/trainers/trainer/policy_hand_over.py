"""From a policy that is trained in one thread to the copy of it that acts in another."""

from __future__ import annotations

import threading
from typing import List

from mlagents.torch_utils import nn, torch
from mlagents.trainers.agent_processor import AgentManagerQueue
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.policy import Policy
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.trainer.trainer import Trainer


class PolicyHandOver(AgentManagerQueue[Policy]):
    """Takes in a trainer's policy after each update, and gives a copy of it to act with, as it was then.

    What goes from one to the other are the parameters and buffers of the policy's modules: weights, statistics of
    normalised observations, and the step counter. What agents remember is the copy's own. Both ways it is one copy of
    a list of tensors, under a lock, so that the copy never holds anything of an update that is under way.

    :param behavior_id: whose policy it is; the trainer has it already.
    :ivar acting: the copy. Only the thread that calls `get_nowait` may use it.
    :raises TrainerConfigError: the policy cannot be copied.
    """

    def __init__(self, behavior_id: str, trainer: Trainer):
        super().__init__(behavior_id, maxlen=1)
        policy = trainer.get_policy(behavior_id)
        try:
            self.acting: Policy = trainer.copy_policy(behavior_id)
            self._snapshot = [tensor.detach().clone() for tensor in _tensors(policy)]
        except Exception as error:  # whatever the parts of a plug-in's policy raise
            raise TrainerConfigError(
                f"threaded: true needs a copy of the policy of behavior {trainer.brain_name}, and it cannot be "
                f"copied: {type(error).__name__}: {error}. Train it with threaded: false."
            ) from error
        self._lock = threading.Lock()

    def put(self, item: Policy) -> None:
        """Take in the policy as it is now, in the place of what was not taken out yet."""
        with self._lock:
            _copy(self._snapshot, _tensors(item))
            super().put(self.acting)

    def get_nowait(self) -> Policy:
        """Return the copy, which is now as the policy was when it was put in last.

        :raises AgentManagerQueue.Empty: nothing was put in since.
        """
        with self._lock:
            acting = super().get_nowait()
            _copy(_tensors(acting), self._snapshot)
        return acting


def _tensors(policy: Policy) -> List[torch.Tensor]:
    """Return the parameters and buffers of a policy's modules, which may be exchanged at any time."""
    if not isinstance(policy, TorchPolicy):
        raise TypeError(f"{type(policy).__name__} is no TorchPolicy")
    modules = [module for module in policy.get_modules().values() if isinstance(module, nn.Module)]
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


@torch.no_grad()
def _copy(targets: List[torch.Tensor], sources: List[torch.Tensor]) -> None:
    torch._foreach_copy_(targets, sources)
