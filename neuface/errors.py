"""The errors that users see. Every message states what was wrong, what was expected and what to do."""


class NeufaceError(Exception):
    """Base class of the errors that this package raises."""


class InputError(NeufaceError, ValueError):
    """A video, array, landmark set or option that cannot be used as it is."""


class ModelMismatchError(NeufaceError, ValueError):
    """Parameters, weights or results of one head model were used with another."""


class MissingDependencyError(NeufaceError, ImportError):
    """The request needs an optional package, or its downloaded weights."""


class InputWarning(UserWarning):
    """Something about an input that is used nevertheless, and that the user should know."""
