"""Files as users send them, and what comes back, read."""

import base64
import io

import numpy as np
from PIL import Image

from fss.imaging.images import encode_png
from tests.fss.conftest import noise_image

MASK = np.zeros((40, 50), np.uint8)
MASK[10:30, 5:30] = 1


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


IMAGE = png(noise_image(1, (50, 40)))
DRAWN = encode_png(MASK * 255)
#: A PNG of a few kilobytes whose header announces 12,000 x 12,000 pixels.
BOMB = png(Image.new("1", (12000, 12000)))


def show(client, **more):
    """Show the thing on IMAGE by DRAWN, and return its name."""
    answer = client.post("/supports", files={"image": IMAGE, "mask": DRAWN}, data=more)
    assert answer.status_code == 200, answer.text
    return answer.json()["thing"]


def query(number, size=(70, 45)):
    return png(noise_image(number, size))


def several(*files):
    return [("images", (f"{place}.png", data)) for place, data in enumerate(files)]


def unpacked(text):
    """The numbers of a PNG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image)
