"""DataFlow's CLIP operators with their storage.

::

    from clipsieve.dropin.dataflow import FileStorage, ImageClipFilter

    storage = FileStorage("captions.jsonl", cache_path="./cache")
    ImageClipFilter().run(storage.step(), threshold=0.25)
"""

from clipsieve.dropin.dataflow.filters import DuplicatePair, ImageClipFilter, ImageDeduplicateFilter
from clipsieve.dropin.dataflow.storage import DataFlowStorage, FileStorage

__all__ = ["DataFlowStorage", "DuplicatePair", "FileStorage", "ImageClipFilter", "ImageDeduplicateFilter"]
