"""NeMo Curator's interleaved filters, with their readers, writers, pipeline and executors.

::

    from clipsieve.dropin.nemo_curator import InterleavedBlurFilterStage, InterleavedParquetReader, Pipeline

    pipeline = Pipeline(name="quality")
    pipeline.add_stage(InterleavedParquetReader(file_paths="raw/*.parquet"))
    pipeline.add_stage(InterleavedBlurFilterStage(score_threshold=100.0))
    batches = pipeline.run()

All stages become one run of Clipsieve's: an image is read and decoded once, and the ledger says what became of it.
"""

from clipsieve.dropin.nemo_curator.batch import FileGroupTask, InterleavedBatch
from clipsieve.dropin.nemo_curator.executors import RayDataExecutor, XennaExecutor
from clipsieve.dropin.nemo_curator.filters import (
    InterleavedAspectRatioFilterStage,
    InterleavedBlurFilterStage,
    InterleavedCLIPScoreFilterStage,
    InterleavedImageToTextRatioFilterStage,
    InterleavedQRCodeFilterStage,
)
from clipsieve.dropin.nemo_curator.pipeline import Pipeline
from clipsieve.dropin.nemo_curator.readers import InterleavedParquetReader, InterleavedWebdatasetReader
from clipsieve.dropin.nemo_curator.resources import Resources
from clipsieve.dropin.nemo_curator.stages import BaseInterleavedFilterStage, ProcessingStage
from clipsieve.dropin.nemo_curator.writers import InterleavedParquetWriterStage, InterleavedWebdatasetWriterStage

__all__ = [
    "BaseInterleavedFilterStage",
    "FileGroupTask",
    "InterleavedAspectRatioFilterStage",
    "InterleavedBatch",
    "InterleavedBlurFilterStage",
    "InterleavedCLIPScoreFilterStage",
    "InterleavedImageToTextRatioFilterStage",
    "InterleavedParquetReader",
    "InterleavedParquetWriterStage",
    "InterleavedQRCodeFilterStage",
    "InterleavedWebdatasetReader",
    "InterleavedWebdatasetWriterStage",
    "Pipeline",
    "ProcessingStage",
    "RayDataExecutor",
    "Resources",
    "XennaExecutor",
]
