"""Settings of the evaluations during training."""

from typing import Optional

import attr

from mlagents.trainers.settings.fields import FINITE, POSITIVE, Range, setting


@attr.s(auto_attribs=True)
class EvaluationSettings:
    """Episodes now and then in an environment of their own, which tell which policy was the best."""

    interval: int = setting(50000, help="Agent steps between two evaluations.", check=POSITIVE)
    episodes: int = setting(10, help="Episodes of an evaluation, whose mean return counts.", check=POSITIVE)
    max_episode_steps: int = setting(
        5000, help="Decisions of an agent after which its episode counts with what it has got.", check=POSITIVE
    )
    deterministic: bool = setting(True, help="Take the most likely actions; false draws them, as training does.")
    seed: Optional[int] = setting(
        None,
        help="Seed of every evaluation; null for one made of the run's.",
        check=Range(low=0, high=2**32 - 1),
    )
    target: Optional[float] = setting(None, help="Stop training at this reward; null for never.", check=FINITE)
    patience: Optional[int] = setting(
        None,
        help="Stop training after so many evaluations without a new best; null for never.",
        check=POSITIVE,
    )
