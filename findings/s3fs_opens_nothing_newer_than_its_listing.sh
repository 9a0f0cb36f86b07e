#!/usr/bin/env bash
# s3fs 2026.9.0: after one `ls` of a folder, an object that another process puts there can be neither seen nor read.
#
# Version:    s3fs 2026.9.0 with its fsspec, moto 5.2.5 as the store, CPython 3.11.
# Input:      a bucket with run/shard-0.tar; `ls("runs/run")`; then another client puts run/manifest.json, and
#             deletes run/shard-0.tar.
# Expected:   a listing may be old. To ask for one object by its name, or to read it, goes to the store.
# Seen:       `exists` says that the manifest is not there, and `cat` and `open` raise FileNotFoundError without a
#             request, however often they are tried: a listing never expires by itself. The deleted shard still exists.
#             A second file system of the same arguments is the same object, so it does not help either. One with
#             `use_listings_cache=False` finds the manifest, and the shard gone.
# Why:        what was listed answers for every name below that folder, also for names that it lacks.
# It matters: jobs that wait for each other's files in a bucket wait for ever, in the one process that has looked into
#             the folder before; in a short script the same lines work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check s3fs==2026.9.0 "moto[server]==5.2.5" boto3==1.43.117
"$folder/venv/bin/python" - <<'PYTHON'
import os

os.environ.update(AWS_ACCESS_KEY_ID="any", AWS_SECRET_ACCESS_KEY="any", AWS_DEFAULT_REGION="us-east-1")
import boto3
import s3fs
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(port=0, verbose=False)
server.start()
address = "http://{}:{}".format(*server.get_host_and_port())
other = boto3.client("s3", endpoint_url=address)
other.create_bucket(Bucket="runs")
other.put_object(Bucket="runs", Key="run/shard-0.tar", Body=b"shard")

system = s3fs.S3FileSystem(endpoint_url=address)
print(f"s3fs {s3fs.__version__}, listed: {system.ls('runs/run')}")
other.put_object(Bucket="runs", Key="run/manifest.json", Body=b"{}")
other.delete_object(Bucket="runs", Key="run/shard-0.tar")


def look(system):
    """Whether the manifest and the shard are there, and what reading the manifest gives."""
    try:
        text = system.cat("runs/run/manifest.json")
    except FileNotFoundError:
        text = None
    return system.exists("runs/run/manifest.json"), system.exists("runs/run/shard-0.tar"), text


seen = {
    "the same": look(system),
    "another of the same arguments": look(s3fs.S3FileSystem(endpoint_url=address)),
    "without listings": look(s3fs.S3FileSystem(endpoint_url=address, use_listings_cache=False)),
}
server.stop()
for name, (manifest, shard, text) in seen.items():
    print(f"{name}: manifest exists {manifest}, shard exists {shard}, manifest read {text}")
old, new = (False, True, None), (True, False, b"{}")
if list(seen.values()) != [old, old, new]:
    raise SystemExit(f"changed: expected {old} twice and {new}")
PYTHON
