"""Errors that a user can act on; the command line prints them as one sentence."""


class NearsightError(Exception):
    """Base of errors whose message is written for the user."""


class ConfigError(NearsightError, ValueError):
    """A configuration that cannot be right."""


class DataError(NearsightError, ValueError):
    """Reference data that cannot be used as asked."""


class ModelFileError(NearsightError, ValueError):
    """A model file that is missing, damaged, foreign or too new."""


class EvaluationError(NearsightError, ValueError):
    """A structure or an option that the core refuses to evaluate."""
