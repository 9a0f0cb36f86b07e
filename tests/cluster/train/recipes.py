"""A job's recipe with other settings, means or head."""

import dataclasses

from cluster.features.head import HeadSettings


def varied(recipe, head=None, means=None, **settings):
    """`recipe` with some of its settings and means replaced; `head` is {"name": ..., "options": ...}."""
    if head is not None:
        settings["head"] = HeadSettings(**head)
    return dataclasses.replace(
        recipe,
        settings=dataclasses.replace(recipe.settings, **settings),
        means=dataclasses.replace(recipe.means, **(means or {})),
    )
