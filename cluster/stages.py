"""The stages by name: each folder of `cluster` with a module `stage` holds one, as its `STAGE`."""

import importlib.util
import pkgutil

import cluster
from cluster.engine.stage import Stage


def _found() -> dict[str, Stage]:
    folders = (module.name for module in pkgutil.iter_modules(cluster.__path__) if module.ispkg)
    names = [name for name in folders if importlib.util.find_spec(f"cluster.{name}.stage") and name != "engine"]
    return {name: importlib.import_module(f"cluster.{name}.stage").STAGE for name in names}


STAGES: dict[str, Stage] = _found()
