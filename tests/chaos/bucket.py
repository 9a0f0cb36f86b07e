"""The bucket of all rounds, as the process sees it that serves it."""

from pathlib import Path

import boto3

_NAME = "chaos"


def make() -> None:
    """An empty one."""
    boto3.client("s3").create_bucket(Bucket=_NAME)


def address(folder: str) -> str:
    """As users write it."""
    return f"s3://{_NAME}/{folder}"


def fetch(folder: str, place: Path) -> None:
    """Write all objects below `folder` to files below `place`."""
    store = boto3.client("s3")
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=_NAME, Prefix=f"{folder}/"):
        for one in page.get("Contents", ()):
            path = place / one["Key"].removeprefix(f"{folder}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get_object(Bucket=_NAME, Key=one["Key"])["Body"].read())
