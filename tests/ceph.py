"""Ceph's object store in a folder of its own, where it is installed: an S3 server that people run, all in memory."""

import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import psutil

#: A monitor, a store of objects, which are kept once, and the door that speaks S3.
_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
INSTALL = "apt-get install --no-install-recommends ceph-mon ceph-osd ceph-common radosgw"
#: The login of its one user.
ID, SECRET = "test", "test"
_SETTINGS = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{monitor}]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
paxos propose interval = 0.05
paxos min wait = 0.01
mon data avail crit = 0
mon data avail warn = 0
admin socket = {folder}/$name.sock
run dir = {folder}
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
[client]
rgw data = {folder}/rgw
"""


def installed():
    """Whether all of its programs are."""
    return all(map(shutil.which, _PROGRAMS))


class Ceph:
    """It runs while the block lasts; its door, which can be struck, is a command: see `door`.

    Args:
        ports: two of this machine that are free, of the monitor and of the door.
        host: where the door listens.
    """

    def __init__(self, ports, host="127.0.0.1"):
        self._folder = Path(tempfile.mkdtemp(prefix="ceph", dir="/tmp"))  # names of Unix sockets must be short
        self._monitor, self.port = ports
        self._settings, self._running = self._folder / "ceph.conf", []
        self._place = f"{host}:{self.port}"
        self.address = f"http://{self._place}"

    def door(self):
        """The command that lets in, by S3."""
        # by itself it holds small answers back for the 40 ms in which one who reads confirms what came
        door = f"--rgw-frontends=beast endpoint={self._place} tcp_nodelay=1"
        return ["radosgw", "-f", "-n", "client.rgw", "-c", str(self._settings), door]

    def answers(self):
        """Whether the door is open."""
        try:
            urllib.request.urlopen(self.address, timeout=10).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def start(self):
        """What is behind the door, and the login of its one user."""
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir()
        fsid, chart = str(uuid.uuid4()), self._folder / "monmap"
        self._settings.write_text(_SETTINGS.format(fsid=fsid, monitor=self._monitor, folder=self._folder))
        self._do("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{self._monitor}]", "--fsid", fsid, chart)
        self._do("ceph-mon", "--mkfs", "-i", "a", "--monmap", chart)
        self._keep("ceph-mon", "-f", "-i", "a")
        self._do("ceph", "osd", "create")
        self._do("ceph-osd", "-i", "0", "--mkfs")
        self._keep("ceph-osd", "-f", "-i", "0")
        self._do("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
        login = (f"--uid={ID}", f"--display-name={ID}", f"--access-key={ID}", f"--secret={SECRET}")
        self._do("radosgw-admin", "user", "create", *login)

    def processes(self):
        """All that runs."""
        return [psutil.Process(one.pid) for one in self._running]

    def _do(self, program, *words):
        command = [program, *map(str, words), *(() if program == "monmaptool" else ("-c", str(self._settings)))]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]

    def _keep(self, *words):
        command = [*words, "-c", str(self._settings)]
        self._running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for one in self._running[::-1]:
            one.kill()
            one.wait()
        shutil.rmtree(self._folder)


class Store(Ceph):
    """Ceph with its door open."""

    def start(self):
        """All of it, and wait until it answers."""
        super().start()
        self._running.append(subprocess.Popen(self.door(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        while not self.answers():
            assert self._running[-1].poll() is None, "radosgw ended"
            time.sleep(0.1)
