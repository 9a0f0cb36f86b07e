"""Images that a head studies: distinct supports that show something, with features as often as they are asked for."""

import torch

from fss import backbones
from fss.backbones.extractor import Extractor
from fss.imaging import images
from fss.tasks.task import Batch
from fss.tasks.views import View
from fss.training import study
from fss.training.bank import FeatureBank

PLAIN = View()


def batch(jpegs=None) -> Batch:
    """Two tasks of two shots; the first one's second support is a distractor, which the second task shows."""
    shares = torch.zeros(2, 2, 2, 3, 3)
    shares[0, 0, 1], shares[1, 0, 1], shares[1, 1, 1] = 0.1, 0.2, 0.3
    rows = [[("q", PLAIN), ("a", PLAIN), ("b", PLAIN)], [("q", PLAIN), ("b", PLAIN), ("a", PLAIN)]]
    return Batch(rows, jpegs or {"a": b"1", "b": b"2"}, torch.zeros(2, 2, 5, 5), shares)


def test_supports_are_studied_as_they_are_first_shown():
    found = study.distinct([batch(), batch()], 9)
    assert [(one.name[0], one.jpeg) for one in found] == [("a", b"1"), ("b", b"2")]
    assert [float(one.shares[1, 0, 0]) for one in found] == [torch.tensor(0.1).item(), torch.tensor(0.2).item()]
    assert len(study.distinct([batch()], 1)) == 1


def test_an_album_can_be_gone_through_again():
    """Also when the bank keeps nothing."""
    pictures = [(60 * k + torch.arange(48 * 48 * 3).reshape(48, 48, 3) % 97).byte().numpy() for k in range(2)]
    jpegs = {name: images.encode_jpeg(images.Image.fromarray(p)) for name, p in zip("ab", pictures, strict=True)}
    extractor = Extractor(backbones.build("small"), size=24)
    for capacity in (0, 1 << 20):
        bank = FeatureBank(extractor, capacity)
        album = study.Album(study.distinct([batch(jpegs)], 9), bank)
        ((first, shares),), ((again, _),) = album, album
        assert shares.shape == (2, 2, 3, 3)
        assert first["mid"].shape == (2, 96, 3, 3)
        assert not torch.equal(first["mid"][0], first["mid"][1])
        assert all(torch.equal(first[level], again[level]) for level in first)
        assert bank.misses == (4 if capacity == 0 else 2)
