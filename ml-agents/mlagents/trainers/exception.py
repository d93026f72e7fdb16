"""Errors of training; each message is meant for the user who meets it."""


class TrainerError(Exception):
    """The base of errors raised while training."""


class TrainerConfigError(Exception):
    """Something in the configuration cannot be used; the message says what, where and what to do."""


class TrainerConfigWarning(Warning):
    """Something in the configuration is probably not what was meant."""


class CurriculumError(TrainerError):
    """The base of errors of curricula."""


class CurriculumLoadingError(CurriculumError):
    """A curriculum could not be read."""


class CurriculumConfigError(CurriculumError):
    """A curriculum is inconsistent."""


class MetaCurriculumError(TrainerError):
    """Several curricula do not fit together."""


class SamplerException(TrainerError):
    """A sampler of environment parameters is malformed."""


class UnityTrainerException(TrainerError):
    """A trainer cannot go on: its data, its model or its behaviour do not fit."""


class NotFiniteError(UnityTrainerException):
    """What a trainer computes is no longer finite, so that its networks are not to be trusted any more.

    :ivar behavior_name: whose trainer it is.
    """

    def __init__(self, message: str, behavior_name: str = ""):
        super().__init__(message)
        self.behavior_name = behavior_name
