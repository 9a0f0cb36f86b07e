"""Frames of videos: their names, their order, their colours, and which side is up."""

import av
import numpy as np
import pytest

from cluster.serving import video

#: One of each frame, far enough apart for any codec.
COLOURS = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30), (30, 220, 220)]


def write(path, colours=COLOURS, codec="mpeg4"):
    """A video of frames of one colour, 64 x 32, whose upper left corner is white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for colour in colours:
            picture = np.full((32, 64, 3), colour, np.uint8)
            picture[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def seen(frames):
    """Of each frame its name's end and the colour of its middle, to the nearest of those above."""
    ends = []
    for name, image in frames:
        middle = np.asarray(image)[image.height // 2, image.width // 2].astype(int)
        ends.append((name.stem[-6:], int(np.abs(np.array(COLOURS) - middle).sum(axis=1).argmin())))
    return ends


@pytest.mark.parametrize("name", ["clip.mp4", "clip.MOV", "clip.avi", "clip.mkv"])
def test_frames_come_in_order_under_their_numbers(tmp_path, name):
    path = write(tmp_path / name)
    assert seen(video.frames(path)) == [(f"{number:06d}", number - 1) for number in range(1, 6)]
    assert seen(video.frames(path, 2)) == [("000001", 0), ("000003", 2), ("000005", 4)]


def test_a_video_that_was_held_upright_is_upright(tmp_path):
    """A phone writes its frames lying, and a matrix that turns them; this one turns by a quarter, clockwise."""
    path = write(tmp_path / "clip.mp4")
    data, one = path.read_bytes(), (1 << 16).to_bytes(4, "big")
    straight = one + bytes(12) + one + bytes(12) + (1 << 30).to_bytes(4, "big")
    turned = bytes(4) + one + bytes(4) + (2**32 - (1 << 16)).to_bytes(4, "big") + bytes(16) + straight[-4:]
    place = data.index(straight, data.index(b"tkhd"))
    path.write_bytes(data[:place] + turned + data[place + len(straight) :])
    _, image = next(video.frames(path))
    assert image.size == (32, 64)
    assert np.asarray(image)[4, 28].min() > 200, "the upper left corner should be the upper right one"


def test_what_is_no_video_is_named(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"clip\.mp4: expected a video, cannot read what follows frame 0"):
        video.check(path)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="expected a video, got a file without pictures"):
        video.check(path)
