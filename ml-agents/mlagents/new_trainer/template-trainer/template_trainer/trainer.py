"""The trainer: which classes belong together."""

from __future__ import annotations

from typing import Any

from mlagents.trainers.trainer.actor_critic_trainer import ActorCriticTrainer

from .optimizer import TemplateOptimizer, TemplateSettings

TRAINER_TYPE = "template_trainer"


class TemplateTrainer(ActorCriticTrainer):
    """Collects experience and has `TemplateOptimizer` learn from it.

    What `ActorCriticTrainer` does can be overridden: networks of your own (`actor_class`, and the optimizer's
    `create_critic`), what becomes of a trajectory (`_process_trajectory`, `_compute_advantages`), when to learn
    (`_is_ready_update`) and how often from the same experience (`_update_policy`).
    """

    settings_class = TemplateSettings
    optimizer_class = TemplateOptimizer

    @staticmethod
    def get_trainer_name() -> str:
        """Return the trainer type."""
        return TRAINER_TYPE


def get_type_and_setting() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the trainer and its settings by trainer type; the entry point in pyproject.toml names this function."""
    return {TRAINER_TYPE: TemplateTrainer}, {TRAINER_TYPE: TemplateSettings}
