"""What every worker of a local Ray does first; alone in its module, for helpers should not wait for torch's import."""

import os

import ray


def name_own_ray() -> None:
    """Say which Ray is meant: Ray Train's helpers look for one, and fail where a machine has several."""
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # also over the user's `local`
