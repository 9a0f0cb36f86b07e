"""The keys of `jobs.serve`."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from omegaconf import MISSING

from fss.keys import FROM_ZERO, POSITIVE, at_least, key, ranged

#: Where tokens may be, so that they stand on no command line.
TOKEN, LABEL_STUDIO_KEY = "FSS_TOKEN", "LABEL_STUDIO_API_KEY"
#: What a browser and every tool may send in a header, long enough not to be guessed.
_TOKEN = re.compile(r"[!-~]{16,}")


@dataclass
class ServeConfig:
    """A model behind an HTTP API and a page."""

    model: str = key(MISSING, path=True)
    """Folder of an exported model, a run's folder, whose model is taken, or MLflow's models:/NAME@ALIAS or
    models:/NAME/VERSION; on a cluster a folder that all machines see."""
    host: str = "127.0.0.1"
    """Address that the server listens at; 0.0.0.0 serves everybody who reaches this machine and knows the token."""
    port: int = key(8000, ranged("a port from 1 to 65535", lambda value: 0 < value < 65536))
    """Port of the server."""
    token: str | None = None
    """What whoever asks must send as `Authorization: Bearer TOKEN`; none = what FSS_TOKEN in the environment says, so
    that nobody sees it. Without a token the server answers this machine alone."""
    address: str | None = None
    """Ray address to join, e.g. `auto`; none starts Ray on this machine, or joins the job's own cluster."""
    replicas: int = key(1, at_least(1))
    """Copies of the model that answer at the same time."""
    cpus_per_replica: int = key(1, at_least(1))
    """CPUs of each, and threads that it computes on."""
    gpus_per_replica: float = key(0, FROM_ZERO)
    """GPUs of each; a share lets several use one."""
    threshold: float = key(0.5, ranged("a probability in (0, 1)", lambda value: 0 < value < 1))
    """Foreground probability from which a pixel belongs to the thing, in (0, 1); a request may say another."""
    presence: float = key(0.25, ranged("a chance from 0 to 1", lambda value: 0 <= value <= 1))
    """Chance from which an image counts as one that holds the thing; a request may say another."""
    edges: bool = True
    """Whether borders of masks follow those of the photo, as in `jobs.predict`; a request may say another."""
    name: str = "thing"
    """What the thing is called where a request does not say."""
    max_images: int = key(32, at_least(1))
    """Images that one request may bring."""
    max_upload_mib: float = key(64, POSITIVE)
    """Size of one request, MiB."""
    max_things: int = key(64, at_least(1))
    """Things that are remembered; those used longest ago are forgotten first."""
    max_things_mib: float = key(512, POSITIVE)
    """Size of all their supports, MiB."""
    label_studio: str | None = None
    """URL of a Label Studio whose images may be fetched; images from elsewhere are refused."""
    label_studio_key: str | None = None
    """Access token of that Label Studio; none = what LABEL_STUDIO_API_KEY in the environment says."""

    @property
    def secret(self) -> str | None:
        """The token that must be sent; None = none."""
        return self.token or os.environ.get(TOKEN) or None

    @property
    def label_studio_secret(self) -> str | None:
        """The token that Label Studio wants; None = none."""
        return self.label_studio_key or os.environ.get(LABEL_STUDIO_KEY) or None

    @property
    def open(self) -> bool:
        """Whether others than this machine may reach the server."""
        return self.address is not None or "RAY_ADDRESS" in os.environ or not is_loopback(self.host)

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        secret = self.secret
        if secret is None:
            wanted = f"token: expected one where others reach the server, got none; set {TOKEN} in the environment"
            return [wanted + " to a long random text, or host=127.0.0.1"] if self.open else []
        if not _TOKEN.fullmatch(secret):
            return [
                "token: expected 16 letters, digits or signs, or more, without spaces; make one by openssl rand -hex 16"
            ]
        return []


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine to itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
