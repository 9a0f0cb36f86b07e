#!/usr/bin/env bash
# Ceph's S3 server 16.2.15: a put on the condition If-Match is refused with the very tag that the server has given.
#
# Version:    radosgw, ceph-mon and ceph-osd 16.2.15+ds-0+deb12u2 of Debian 12, boto3 1.43.117, CPython 3.11. Needs root,
#             for apt-get; the packages are unpacked into the temporary folder, all objects are in memory.
# Input:      put_object answers with an ETag in quotes, as HTTP writes it. It is handed back as IfMatch.
# Expected:   while the object is as it was, the put is done.
# Seen:       412 PreconditionFailed, each time. Without the quotes the put is done, and refused once the object has
#             changed. get_object takes both forms. IfNoneMatch="*" does what it should.
# Why:        a put seems to compare the header as it came with a tag that is kept without quotes; a get takes them off.
# It matters: a lock in a bucket is renewed with the tag of the last renewal. Here its holder is told each time that
#             somebody else has taken it, and nobody has.
set -euo pipefail
version=16.2.15+ds-0+deb12u2
folder=$(mktemp -d /tmp/ceph.XXXXXX)
trap 'jobs -pr | xargs -r kill -9; wait; rm -rf "$folder"' EXIT
mkdir -p "$folder"/{debs/partial,root,mon,osd,rgw}
apt-get update -qq
apt-get install -qq --download-only --reinstall --no-install-recommends -o "Dir::Cache::archives=$folder/debs" \
    {ceph-mon,ceph-osd,ceph-base,ceph-common,radosgw,librados2,librgw2,python3-rados,python3-ceph-argparse}="$version" >/dev/null
for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$folder/root"; done
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check boto3==1.43.117 prettytable==3.17.0 pyyaml==6.0.3

usr=$folder/root/usr
libraries=$usr/lib/x86_64-linux-gnu
export PATH=$usr/bin:$PATH LD_LIBRARY_PATH=$libraries:$libraries/ceph PYTHONPATH=$usr/lib/python3/dist-packages
export CEPH_CONF=$folder/ceph.conf
monitor=v1:127.0.0.1:26789 door=127.0.0.1:27480
cat >"$CEPH_CONF" <<CONF
[global]
fsid = 11111111-2222-3333-4444-555555555555
mon host = [$monitor]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
mon allow pool size one = true
osd objectstore = memstore
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
paxos propose interval = 0.05
mon data avail crit = 0
admin socket = $folder/\$name.sock
run dir = $folder
log file = $folder/\$name.log
mon data = $folder/mon
osd data = $folder/osd
osd class dir = $libraries/rados-classes
erasure code dir = $libraries/ceph/erasure-code
plugin dir = $libraries/ceph
[client]
rgw data = $folder/rgw
CONF
monmaptool --create --addv a "[$monitor]" --fsid 11111111-2222-3333-4444-555555555555 "$folder/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$folder/monmap"
ceph-mon -f -i a >/dev/null 2>&1 &
"$folder/venv/bin/python" "$usr/bin/ceph" osd create >/dev/null
ceph-osd -i 0 --mkfs >/dev/null 2>&1
ceph-osd -f -i 0 >/dev/null 2>&1 &
"$folder/venv/bin/python" "$usr/bin/ceph" osd crush add osd.0 1 root=default host=here >/dev/null 2>&1
radosgw-admin user create --uid=any --display-name=any --access-key=any --secret=any >/dev/null 2>&1
radosgw -f -n client.rgw --rgw-frontends="beast endpoint=$door" >/dev/null 2>&1 &
until (exec 3<>"/dev/tcp/${door/:/\/}") 2>/dev/null; do sleep 0.2; done

radosgw --version
env -u PYTHONPATH -u LD_LIBRARY_PATH "$folder/venv/bin/python" - "http://$door" <<'PYTHON'
import sys

import boto3
from botocore.exceptions import ClientError

login = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
store = boto3.client("s3", endpoint_url=sys.argv[1], **login)
store.create_bucket(Bucket="locks")


def tried(call, **condition):
    """Whether a put or a get under a condition is done."""
    try:
        getattr(store, call)(Bucket="locks", Key="lock", **condition)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "done"


tag = store.put_object(Bucket="locks", Key="lock", Body=b"first")["ETag"]
seen = {
    "get, as given": tried("get_object", IfMatch=tag),
    "get, without quotes": tried("get_object", IfMatch=tag.strip('"')),
    "put, as given": tried("put_object", Body=b"second", IfMatch=tag),
    "put, without quotes": tried("put_object", Body=b"second", IfMatch=tag.strip('"')),
    "put, without quotes, once it has changed": tried("put_object", Body=b"third", IfMatch=tag.strip('"')),
    "put, if there is none": tried("put_object", Body=b"third", IfNoneMatch="*"),
}
for how, what in seen.items():
    print(f"{how}: {what}")
refused = "PreconditionFailed"
if list(seen.values()) != ["done", "done", refused, "done", refused, refused]:
    raise SystemExit("changed")
PYTHON
