"""What every worker of a local Ray does first; alone in its module, for helpers should not wait for torch's import."""

import os

import ray


def name_own_ray() -> None:
    """Say which Ray is meant: Ray Train's helpers look for one, and fail where several runs go on on a machine."""
    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
