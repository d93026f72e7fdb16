"""The loss on numbers worked by hand, and training on small tasks."""

import math
from types import SimpleNamespace

import pytest
import torch
from mlagents.testing import check_trainer
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticBatch

from template_trainer.optimizer import TemplateOptimizer


def test_the_loss_by_hand():
    batch = ActorCriticBatch(
        log_probs=torch.tensor([[math.log(0.6)], [math.log(0.2)]]),
        old_log_probs=torch.tensor([[math.log(0.4)], [math.log(0.4)]]),
        entropy=torch.tensor([1.0, 3.0]),
        values={"extrinsic": torch.tensor([1.0, 2.0])},
        old_values={"extrinsic": torch.tensor([0.0, 0.0])},
        returns={"extrinsic": torch.tensor([2.0, 4.0])},
        advantages=torch.tensor([1.0, 1.0]),
        masks=None,
    )
    optimizer = SimpleNamespace(hyperparameters=SimpleNamespace(clip=0.2, entropy_weight=0.1))
    loss, metrics = TemplateOptimizer.loss(optimizer, batch)
    # The ratios are 1.5, clipped to 1.2, and 0.5, which is the smaller gain as it is.
    assert float(metrics["Losses/Policy Loss"]) == pytest.approx(-(1.2 + 0.5) / 2)
    assert float(metrics["Losses/Value Loss"]) == pytest.approx((1 + 4) / 2)
    assert float(loss) == pytest.approx(-0.85 + 0.5 * 2.5 - 0.1 * 2)


@pytest.mark.parametrize("task", ["continuous", "branches", "masks"])
def test_it_learns(task):
    check_trainer("template_trainer", tasks=[task])
