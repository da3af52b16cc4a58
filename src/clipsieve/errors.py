"""Every error that Clipsieve raises on purpose, in one tree.

::

    ClipsieveError                 one clear line: what, where, what to do
    ├── UsageError                 the request is wrong; nothing ran (exit code 2); a ValueError too
    │   ├── RecipeError            a recipe, option or flag
    │   ├── RuleError              the text of a rule
    │   └── ColumnError            a column that the source does not have
    ├── SourceError                a source that cannot be listed, opened or parsed
    ├── ModelError                 a model that cannot be found, loaded or used
    ├── RunFolderError             a run folder that is locked, foreign or from another recipe
    ├── IndexStoreError            an index that cannot be reached, is foreign or was made with another model
    ├── EngineError                a cluster that cannot be reached, or that gave up
    ├── StoreError                 an object store or server that does not answer or does not accept who asks
    ├── OutputError                an output that cannot be written (full disk, existing folder)
    ├── CountsError                counts or the error policy say no (exit code 3)
    └── ImageError                 one image that cannot be fetched or decoded; ends as a verdict
"""


class ClipsieveError(Exception):
    """Base of all errors raised on purpose; its text is one line a user can act on."""

    exit_code = 1


class UsageError(ClipsieveError, ValueError):
    """The request itself is wrong; nothing has run."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe, option or flag that cannot be used."""


class RuleError(UsageError):
    """The text of a rule does not parse, or names something unknown."""


class ColumnError(UsageError):
    """A column that the source does not have; the text lists those it has."""


class SourceError(ClipsieveError):
    """A source that cannot be listed, opened or parsed."""


class ModelError(ClipsieveError):
    """A model that cannot be found, loaded or used."""


class RunFolderError(ClipsieveError):
    """A run folder that is locked, foreign or belongs to another recipe."""


class IndexStoreError(ClipsieveError):
    """An index that cannot be reached, read or written, is foreign, or was made with another model."""


class EngineError(ClipsieveError):
    """A cluster that cannot be reached, lacks something, or gave up."""


class StoreError(ClipsieveError, OSError):
    """An object store or server that does not answer, or does not accept who asks; no file is to blame."""


class OutputError(ClipsieveError):
    """An output that cannot be written."""


class CountsError(ClipsieveError):
    """The run finished, but its counts do not add up or its error policy says no."""

    exit_code = 3


class ImageError(ClipsieveError):
    """One image that cannot be fetched or decoded; the engine turns it into the verdict ``failed``."""
