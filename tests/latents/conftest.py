"""The toy world of the training tests, for callbacks and commands that need a run."""

from training.conftest import config, world, write  # noqa: F401
