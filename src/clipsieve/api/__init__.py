"""What Python users and the command line both call; one file for each thing that can be asked."""

from clipsieve.api.applying import apply_run
from clipsieve.api.dataset_scores import add_score
from clipsieve.api.duplicates import dedup_run
from clipsieve.api.execution import DEFAULT_OUT, execute, installed, load_encoder, run, score, versions
from clipsieve.api.export import Exported, export_run
from clipsieve.api.labels import draw_sheet, label
from clipsieve.api.memory import Curated, curate
from clipsieve.api.progress import Progress, Silent
from clipsieve.api.runs import Run, open_source
from clipsieve.api.search import Indexed, index_run

__all__ = [
    "DEFAULT_OUT",
    "Curated",
    "Exported",
    "Indexed",
    "Progress",
    "Run",
    "Silent",
    "add_score",
    "apply_run",
    "curate",
    "dedup_run",
    "draw_sheet",
    "execute",
    "export_run",
    "index_run",
    "installed",
    "label",
    "load_encoder",
    "open_source",
    "run",
    "score",
    "versions",
]
