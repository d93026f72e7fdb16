"""Settings of the reward signals that a policy is trained on."""

from enum import Enum
from typing import Optional

import attr

from mlagents.trainers.settings.fields import FINITE, FRACTION, NOT_NEGATIVE, POSITIVE, setting
from mlagents.trainers.settings.network import NetworkSettings


class RewardSignalType(Enum):
    """A source of reward."""

    EXTRINSIC = "extrinsic"
    GAIL = "gail"
    CURIOSITY = "curiosity"
    RND = "rnd"

    def to_settings(self) -> type:
        """Return the settings class of this signal."""
        return _SETTINGS_CLASSES[self]


@attr.s(auto_attribs=True)
class RewardSignalSettings:
    """What every signal has; all there is for the environment's own (extrinsic) reward."""

    gamma: float = setting(0.99, help="Discount of the reward per step.", check=FRACTION)
    strength: float = setting(1.0, help="Factor on the reward.", check=FINITE)
    network_settings: NetworkSettings = setting(attr.Factory(NetworkSettings), help="The signal's own network.")


@attr.s(auto_attribs=True)
class GAILSettings(RewardSignalSettings):
    """Reward for acting like demonstrations (generative adversarial imitation learning)."""

    learning_rate: float = setting(3.0e-4, help="Step size for the discriminator.", check=NOT_NEGATIVE)
    encoding_size: Optional[int] = setting(None, help="Units of its layers; null: network_settings.", check=POSITIVE)
    use_actions: bool = setting(False, help="Judge observations and actions rather than observations alone.")
    use_vail: bool = setting(False, help="Limit what the discriminator sees by a variational bottleneck.")
    demo_path: str = setting(help="A .demo file, or a folder of them.", kw_only=True)


@attr.s(auto_attribs=True)
class CuriositySettings(RewardSignalSettings):
    """Reward for reaching what a forward model does not predict."""

    learning_rate: float = setting(3.0e-4, help="Step size for the forward and inverse model.", check=NOT_NEGATIVE)
    encoding_size: Optional[int] = setting(None, help="Units of its layers; null: network_settings.", check=POSITIVE)


@attr.s(auto_attribs=True)
class RNDSettings(RewardSignalSettings):
    """Reward for observations on which a random network is not yet imitated (random network distillation)."""

    learning_rate: float = setting(1.0e-4, help="Step size for the imitating network.", check=NOT_NEGATIVE)
    encoding_size: Optional[int] = setting(None, help="Units of its layers; null: network_settings.", check=POSITIVE)


_SETTINGS_CLASSES = {
    RewardSignalType.EXTRINSIC: RewardSignalSettings,
    RewardSignalType.GAIL: GAILSettings,
    RewardSignalType.CURIOSITY: CuriositySettings,
    RewardSignalType.RND: RNDSettings,
}
