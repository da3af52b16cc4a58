"""What Python users and the command line both call; one file for each thing that can be asked."""

from clipsieve.api.runs import (
    DEFAULT_OUT,
    Progress,
    Run,
    Silent,
    execute,
    load_encoder,
    open_source,
    run,
    score,
    versions,
)

__all__ = [
    "DEFAULT_OUT",
    "Progress",
    "Run",
    "Silent",
    "execute",
    "load_encoder",
    "open_source",
    "run",
    "score",
    "versions",
]
