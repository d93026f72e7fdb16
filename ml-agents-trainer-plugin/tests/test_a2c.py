"""A2C: its loss on numbers worked by hand, and its shipped configuration through the command."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mlagents_trainer_plugin
from mlagents.trainers.buffer import BufferKey
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticBatch
from mlagents.trainers.settings import TrainerSettings
from mlagents_trainer_plugin.a2c.a2c_optimizer import A2COptimizer, A2CSettings
from mlagents_trainer_plugin.a2c.a2c_trainer import A2CTrainer, get_type_and_setting

CONFIG = Path(mlagents_trainer_plugin.__file__).parent / "a2c" / "a2c_3DBall.yaml"


def batch_of_two(masks=None):
    """Two rows, two action dimensions, two reward signals."""
    return ActorCriticBatch(
        log_probs=torch.tensor([[math.log(0.5), math.log(0.5)], [math.log(0.25), 0.0]], requires_grad=True),
        old_log_probs=torch.zeros(2, 2),
        entropy=torch.tensor([1.0, 3.0]),
        values={"extrinsic": torch.tensor([1.0, 2.0]), "curiosity": torch.tensor([0.0, 0.0])},
        old_values={"extrinsic": torch.zeros(2), "curiosity": torch.zeros(2)},
        returns={"extrinsic": torch.tensor([2.0, 4.0]), "curiosity": torch.tensor([0.0, 2.0])},
        advantages=torch.tensor([1.0, -2.0]),
        masks=masks,
    )


def loss_of(batch, beta=0.1):
    optimizer = SimpleNamespace(
        policy=SimpleNamespace(get_current_step=lambda: 0), decay_beta=SimpleNamespace(get_value=lambda step: beta)
    )
    return A2COptimizer.loss(optimizer, batch)


def test_the_loss_by_hand():
    batch = batch_of_two()
    loss, metrics = loss_of(batch)
    # Both actions have probability 1/4, of log -2 ln 2. Policy: -(1 * -2 ln 2 + -2 * -2 ln 2) / 2 = -ln 2.
    # Values: errors 1, 2 and 0, 2, squared 1, 4 and 0, 4: (1 + 4 + 0 + 4) / 4 = 2.25. Entropy: 2.
    assert metrics["Losses/Policy Loss"].item() == pytest.approx(math.log(2))
    assert metrics["Losses/Value Loss"].item() == pytest.approx(2.25)
    assert float(metrics["Policy/Entropy"]) == pytest.approx(2.0)
    assert loss.item() == pytest.approx(-math.log(2) + 0.5 * 2.25 - 0.1 * 2)
    loss.backward()
    # Every dimension of an action gets -advantage / 2 rows.
    torch.testing.assert_close(batch.log_probs.grad, torch.tensor([[-0.5, -0.5], [1.0, 1.0]]))


def test_rows_of_padding_do_not_count():
    first_row_alone = batch_of_two(masks=torch.tensor([True, False]))
    loss, metrics = loss_of(first_row_alone)
    assert metrics["Losses/Policy Loss"].item() == pytest.approx(2 * math.log(2))
    assert metrics["Losses/Value Loss"].item() == pytest.approx(0.5)
    assert loss.item() == pytest.approx(2 * math.log(2) + 0.5 * 0.5 - 0.1 * 1)
    loss.backward()
    assert first_row_alone.log_probs.grad[1].tolist() == [0, 0]


def test_it_registers_and_passes_once_over_its_data_by_default():
    types, settings = get_type_and_setting()
    assert types == {"a2c": A2CTrainer}
    assert settings == {"a2c": A2CSettings}
    assert A2CTrainer.get_settings_type() is A2CSettings
    assert A2CSettings().num_epoch == 1


def test_advantages_stay_as_they_are(tmp_path):
    settings = TrainerSettings(hyperparameters=A2CSettings())
    trainer = A2CTrainer("Ball", 1, settings, True, False, 0, str(tmp_path))
    trainer.update_buffer[BufferKey.MASKS].set([1.0, 1.0])
    trainer.update_buffer[BufferKey.ADVANTAGES].set([3.0, 5.0])
    trainer._normalize_advantages()
    assert list(trainer.update_buffer[BufferKey.ADVANTAGES]) == [3.0, 5.0]


@pytest.mark.learning
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_3dball_is_learned(train, seed):
    _, mean_return = train(CONFIG, "3DBall", seed)
    assert mean_return >= 95
