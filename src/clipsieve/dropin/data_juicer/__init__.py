"""Data-Juicer's ``image_pair_similarity_filter``: the class, and its YAML as a recipe of Clipsieve's own.

::

    from clipsieve.dropin.data_juicer import ImagePairSimilarityFilter

    op = ImagePairSimilarityFilter(min_score=0.85)
    ds = ds.map(op.compute_stats, batched=True).filter(op.process, batched=True)
"""

from clipsieve.dropin.data_juicer.filter import ImagePairSimilarityFilter
from clipsieve.dropin.data_juicer.recipe import recipe_values, to_recipe

__all__ = ["ImagePairSimilarityFilter", "recipe_values", "to_recipe"]
