"""Units of work in this process, without Ray: what a pool's workers make, as they would make it, started in no time.

What is handed out is pickled as for a worker, so that nothing passes here that could not travel; what raises is a
`Failure`. That workers make the same bytes is shown by test_stages.py and its neighbours.
"""

from ray import cloudpickle

from cluster.engine import compute
from cluster.engine.files import damaged_in
from cluster.engine.pool import Failure
from cluster.engine.run import Run
from cluster.stages import STAGES


class Here:
    """A pool of this process alone."""

    size = present = 1

    def map(self, function, units):
        function = cloudpickle.loads(cloudpickle.dumps(function))
        for index, unit in enumerate(units):
            yield index, _done(function, index, unit)

    def each(self, function, units):
        for _, result in self.map(function, units):
            if isinstance(result, Failure):
                raise ValueError(result.message) from result.error
            yield result

    def on_each(self, function, units):
        return list(self.each(function, units))

    def on_all(self, function):
        self.on_each(function, [None])

    def serve(self, folder):
        compute.note(folder, compute.here())

    def rest(self):
        pass


def _done(function, index, unit):
    try:
        return function(cloudpickle.loads(cloudpickle.dumps(unit)))
    except Exception as error:
        error = next(damaged_in(error), error)
        return Failure(index, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", error)


def here(config):
    """A run of its own whose units are computed in this process, also after a training, for which others make room."""
    run = Run(config, STAGES)
    run.__dict__ |= {"pool": Here(), "_connected": True}  # where a run keeps its pool, and that there is a Ray
    run.release_pool = lambda: None  # the next pool would be a real one, on whichever Ray is at work on this machine
    return run
