"""A page in the user's own browser, once its server answers. A process of its own: `python -m cluster.tracking.browse`.

It takes the page's address, opens it where there is a screen, and ends; also when the server ends before it answers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import webbrowser
from urllib.parse import urlsplit

#: Seconds between two looks at whether the server answers.
_PAUSE = 0.2


def later(page: str) -> None:
    """Open `page` as soon as the server answers that this process is or becomes; without a screen do nothing."""
    if screen():
        command = [sys.executable, "-m", "cluster.tracking.browse", page]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def screen() -> bool:
    """Whether a browser can be seen here; Linux says where its screen is, others have one."""
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def when_it_answers(page: str) -> None:
    """Open `page` when somebody listens there, unless the parent process ends before."""
    place, server = urlsplit(page), os.getppid()
    while os.getppid() == server:
        try:
            socket.create_connection((place.hostname or "", place.port or 80), _PAUSE).close()
        except OSError:
            time.sleep(_PAUSE)
        else:
            webbrowser.open(page)
            return


if __name__ == "__main__":
    when_it_answers(sys.argv[1])
