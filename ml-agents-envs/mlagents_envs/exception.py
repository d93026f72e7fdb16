"""Errors that environments raise; each message is meant for the user who meets it."""


class UnityException(Exception):
    """The base of every error of an environment."""


class UnityEnvironmentException(UnityException):
    """An environment could not be found, started or closed."""


class UnityCommunicationException(UnityException):
    """The link to an environment's process failed."""


class UnityCommunicatorStoppedException(UnityException):
    """The environment's side ended the communication."""


class UnityObservationException(UnityException):
    """An observation's data do not fit its specification."""


class UnityActionException(UnityException):
    """An action does not fit the behaviour it was meant for."""


class UnityTimeOutException(UnityException):
    """The environment took too long to answer."""


class UnitySideChannelException(UnityException):
    """A side channel, or a message on one, is malformed."""


class UnityWorkerInUseException(UnityException):
    """The port of a worker is taken.

    :param detail: a sentence on the port and who holds it.
    """

    MESSAGE_TEMPLATE = (
        "Couldn't start socket communication because worker number {} is still in use. "
        "Close the environment that uses its port, or choose another worker id or base port."
    )

    def __init__(self, worker_id: int, detail: str = ""):
        super().__init__(worker_id, detail)  # so that pickle makes the same exception again

    def __str__(self) -> str:
        worker_id, detail = self.args
        return f"{self.MESSAGE_TEMPLATE.format(worker_id)} {detail}".rstrip()


class UnityPolicyException(UnityException):
    """A policy could not act or could not be loaded."""
