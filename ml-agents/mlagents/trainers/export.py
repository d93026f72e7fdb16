"""The command `mlagents-export`: the model of a checkpoint as ONNX, without an environment."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence

from mlagents.plugins.blame import describe_error, find_culprit
from mlagents.plugins.trainer_type import usable_plugins
from mlagents.torch_utils import set_torch_config
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.exception import TrainerConfigError, TrainerError, UnityTrainerException
from mlagents.trainers.model_saver.about import ABOUT, read_about
from mlagents.trainers.model_saver.checkpoint_file import read_checkpoint
from mlagents.trainers.model_saver.contents import first_not_finite
from mlagents.trainers.model_saver.fitting import differences, shown
from mlagents.trainers.model_saver.surroundings import behavior_spec_beside, settings_beside
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.report import ODD_CONTENTS, describe_odd_contents
from mlagents.trainers.settings import TorchSettings, TrainerSettings
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents.trainers.trainer import TrainerFactory
from mlagents_envs.base_env import BehaviorSpec


class PolicyRecipe(NamedTuple):
    """What a trainer needs to make a policy."""

    behavior_name: str
    behavior_spec: BehaviorSpec
    trainer_settings: TrainerSettings


def export_checkpoint(checkpoint: Path, output: Path) -> None:
    """Write the model of a checkpoint.

    :param output: where to; a file that is there is replaced.
    :raises UnityTrainerException: the checkpoint cannot be read, or does not tell what to make; or the model cannot be
        written.
    :raises TrainerConfigError: its settings cannot be read here; for instance, the trainer type is not installed.
    """
    if output.suffix != ".onnx":
        raise UnityTrainerException(f"The model {output} should have a name that ends in .onnx.")
    state = read_checkpoint(checkpoint)
    if "Policy" not in state and ABOUT not in state:
        raise UnityTrainerException(f"{checkpoint} is not the checkpoint of a behavior: it holds no policy.")
    policy = make_policy(read_recipe(checkpoint, state), checkpoint)
    load_policy(policy, state, checkpoint)
    try:
        ModelSerializer(policy).export_policy_model(str(output))
    except OSError as error:
        raise UnityTrainerException(f"{output} cannot be written: {error.strerror}.") from error
    except Exception as error:  # whatever a plug-in's network or torch's exporter raises
        reason = describe_error(error).strip().splitlines()[0]
        raise UnityTrainerException(f"The policy of {checkpoint} cannot be exported: {reason}") from error


def read_recipe(checkpoint: Path, state: Dict[str, Any]) -> PolicyRecipe:
    """Return what a checkpoint's policy is made of: by its own account, else by what lies around it.

    :raises UnityTrainerException: that cannot be found out.
    :raises TrainerConfigError: the settings cannot be read here.
    """
    about = read_about(state, checkpoint)
    if about is not None:
        return PolicyRecipe(about.behavior_name, about.behavior_spec, about.read_trainer_settings(checkpoint))
    behavior_spec = behavior_spec_beside(checkpoint, state)
    return PolicyRecipe(checkpoint.resolve().parent.name, behavior_spec, settings_beside(checkpoint))


def make_policy(recipe: PolicyRecipe, checkpoint: Path) -> TorchPolicy:
    """Make a policy as training does: its trainer makes it.

    :raises UnityTrainerException: it is none of torch.
    """
    factory = TrainerFactory(
        trainer_config={recipe.behavior_name: recipe.trainer_settings},
        output_path=str(checkpoint.parent.parent),
        train_model=False,
        load_model=False,
        seed=0,
        status={},
    )
    trainer = factory.generate(recipe.behavior_name)
    policy = trainer.create_policy(
        BehaviorIdentifiers.from_name_behavior_id(recipe.behavior_name), recipe.behavior_spec
    )
    if not isinstance(policy, TorchPolicy):
        raise UnityTrainerException(
            f"The trainer {recipe.trainer_settings.trainer_type} of {checkpoint} makes a {type(policy).__name__}, "
            f"which is no TorchPolicy: only these can be exported."
        )
    return policy


def load_policy(policy: TorchPolicy, state: Dict[str, Any], checkpoint: Path) -> None:
    """Load a policy's modules, all that they have and nothing else.

    :raises UnityTrainerException: the checkpoint holds others, or numbers that are not finite.
    """
    modules = policy.get_modules()
    own = {name: state[name] for name in modules if name in state}
    lines = differences(modules, own)
    if lines:
        raise UnityTrainerException(f"{checkpoint} does not fit the policy that its settings make:\n  {shown(lines)}")
    place = first_not_finite(own)
    if place is not None:
        raise UnityTrainerException(f"{checkpoint} holds numbers that are not finite ({place}). Export an earlier one.")
    for name, module in modules.items():
        module.load_state_dict(own[name])


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command; a mistake is one message on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="mlagents-export",
        description="Write the model of a checkpoint as ONNX, for Unity's inference engine and others.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="such as results/ball/3DBall/checkpoint.pt")
    parser.add_argument(
        "-o", "--output", metavar="FILE.onnx", help="the model (default: beside the checkpoint, under its name)"
    )
    args = parser.parse_args(argv)
    checkpoint = Path(args.checkpoint)
    output = Path(args.output) if args.output is not None else checkpoint.with_suffix(".onnx")
    try:
        set_torch_config(TorchSettings(device="cpu"))  # a GPU may be full of the training that goes on
        export_checkpoint(checkpoint, output)
    except (TrainerConfigError, TrainerError) as error:
        sys.exit(f"mlagents-export: {error}")
    except Exception as error:
        culprit = find_culprit(error, usable_plugins())
        if culprit is None and isinstance(error, ODD_CONTENTS):
            sys.exit(f"mlagents-export: {describe_odd_contents(checkpoint, error)}")
        if culprit is None:
            raise
        sys.exit(f"mlagents-export: {culprit}")


if __name__ == "__main__":
    main()
