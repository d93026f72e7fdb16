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
