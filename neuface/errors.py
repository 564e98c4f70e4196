"""Every error a user can meet, each saying what was wrong, what was expected and what to do."""


class NeufaceError(Exception):
    """Base of all errors raised on purpose by this package."""


class InputError(NeufaceError, ValueError):
    """A video, array, landmark set or option that cannot be used as it is."""


class ModelMismatchError(NeufaceError, ValueError):
    """Parameters, weights or results of one head model met another head model."""


class MissingDependencyError(NeufaceError, ImportError):
    """An optional package (or its downloaded weights) is needed for what was asked."""
