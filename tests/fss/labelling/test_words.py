"""Word vectors of every format, by hand, and what is wrong with bad files."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fss.labelling import words
from fss.labelling.words.fasttext import fnv1a
from tests.places import SHARED

VECTORS = SHARED / "data/word_vectors/wordnet128.vec"
BODY = "cat 1 0 0\ndog 0.6 0.8 0\nn02123045_tabby,_cat 0 0 1\nTable 0 1 0\nhot_dog 0 0 2\n"


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def model(quantised: bool = False, magic: int = 793712314, version: int = 12) -> bytes:
    """A fastText model of two words and 8 buckets with subwords of three characters: row r is (r, 1)."""
    head = struct.pack("<14id", magic, version, 2, 5, 5, 1, 5, 1, 1, 1, 8, 3, 3, 100, 1e-4)
    head += struct.pack("<3i2q", 2, 2, 0, 9, -1)
    head += b"".join(word + b"\0" + struct.pack("<qb", 3, 0) for word in (b"ab", "hüt".encode()))
    rows = np.stack([np.arange(10), np.ones(10)], 1).astype("<f4")
    return head + struct.pack("<b2q", quantised, 10, 2) + rows.tobytes() + b"output"


def unit(*values: float) -> np.ndarray:
    return np.array(values) / np.linalg.norm(values)


@pytest.mark.parametrize("head", ["5 3\n", ""], ids=["fastText", "GloVe"])
def test_text_by_hand(tmp_path, head):
    """As a whole, whatever the spelling; by its words; by synonyms; the first of words with one key."""
    path = written(tmp_path, "some.vec", head + BODY)
    found = words.vectors(path, ["Cat", "hot dog", "dining_table", "cat-dog", "cat, hotdog"])
    expected = [unit(1, 0, 0), unit(0, 0, 1), unit(0, 1, 0), unit(1.6, 0.8, 0), unit(1, 0, 1)]
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)
    assert np.allclose(words.similarities(found[:1], found[3:4]), 1.6 / np.hypot(1.6, 0.8))


def test_the_exact_spelling_goes_first(tmp_path):
    path = written(
        tmp_path, "some.vec", "imagenet/n1_crane 0 1\nimagenet/n02012849_crane 1 0\nimagenet/n03126707_crane 0 2\n"
    )
    assert np.allclose(words.vectors(path, ["imagenet/n03126707_crane", "crane"]), [[0, 1], [1, 0]])


def test_words_with_spaces_are_read_from_the_right(tmp_path):
    path = written(tmp_path, "glove.txt", "cat 1 0\nhot dog 0 1\n")
    assert np.allclose(words.vectors(path, ["hot dog"]), [[0, 1]])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no word vectors"),
        ("3 2\ncat 1 0\n", "expected the 3 rows of the first line, got 1: is it cut short"),
        ("cat 1 0\ndog 1\n", "line 2: expected a word and 2 numbers"),
        ("2 2\ncat 1 0\ndog 1\n", "line 3: expected a word and 2 numbers"),
        ("cat 1 x\n", r"line 1: expected 2 numbers after 'cat' \(could not convert"),
        ("cat 1 nan\n", "line 1: expected finite numbers after 'cat'"),
        ("cat\n", "line 1: expected a word and 0 numbers"),
    ],
)
def test_bad_text_is_refused(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint):
        words.vectors(written(tmp_path, "bad.vec", content), ["cat"])


def test_missing_files_and_names_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read word vectors .*nowhere.vec.* \(FileNotFoundError"):
        words.vectors(str(tmp_path / "nowhere.vec"), ["cat"])
    with pytest.raises(ValueError, match=r"no vector for 1 of 2 names: 'yak'\. Rename the classes"):
        words.vectors(written(tmp_path, "some.vec", BODY), ["cat", "yak"])


def test_fasttexts_hash_takes_bytes_as_signed():
    """FNV-1a's published value for ASCII; above it fastText's differs from the published one for "ü"."""
    assert fnv1a(b"a") == 0xE40C292C
    plain = 2166136261
    for byte in "ü".encode():
        plain = (plain ^ byte) * 16777619 % 2**32
    assert fnv1a("ü".encode()) != plain


def test_fasttexts_model_by_hand(tmp_path):
    """`ab`: row 0 with its subwords <ab and ab>; `cd`, unknown: its subwords alone."""
    path = written(tmp_path, "some.bin", model())
    places = {part: 2 + fnv1a(part.encode()) % 8 for part in ("<ab", "ab>", "<hü", "hüt", "üt>", "<cd", "cd>")}
    means = {
        "ab": np.mean([0, places["<ab"], places["ab>"]]),
        "hüt": np.mean([1, places["<hü"], places["hüt"], places["üt>"]]),
        "cd": np.mean([places["<cd"], places["cd>"]]),
    }
    found = words.vectors(path, list(means))
    assert np.allclose(found, [unit(mean, 1) for mean in means.values()], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (model(quantised=True), "got a quantised one"),
        (model(magic=1), "expected a fastText model of version 12, got magic 1"),
        (model(version=11), "got magic 793712314, version 11"),
        (model()[:20], "cut short"),
        (model()[:100], "cut short in word"),
        (model()[:-50], "row . of 10 is missing"),
        (b"", "cut short"),
    ],
)
def test_bad_models_are_refused(tmp_path, content, complaint):
    with pytest.raises(ValueError, match=complaint):
        words.vectors(written(tmp_path, "bad.bin", content), ["cd", "ab", "hüt"])


def test_vectors_of_another_encoder(tmp_path):
    rows = np.array([[3, 4], [0, 2]], np.float32)
    np.savez(tmp_path / "clip.npz", names=["cat", "a dog"], vectors=rows)
    save_file({"vectors": rows}, tmp_path / "clip.safetensors", {"names": json.dumps(["cat", "a dog"])})
    for name in ("clip.npz", "clip.safetensors"):
        assert np.allclose(words.vectors(str(tmp_path / name), ["a dog", "cat"]), [[0, 1], [0.6, 0.8]])


def test_other_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", names=["cat"], vectors=np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"got 1 names and float32 vectors \(2, 3\); expected arrays `names`"):
        words.vectors(str(tmp_path / "a.npz"), ["cat"])
    np.savez(tmp_path / "b.npz", names=np.array([{}], object), vectors=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="cannot read word vectors"):
        words.vectors(str(tmp_path / "b.npz"), ["cat"])
    save_file({"vectors": np.zeros((1, 3), np.float32)}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="in the metadata `names`, a JSON list"):
        words.vectors(str(tmp_path / "c.safetensors"), ["cat"])


@pytest.mark.skipif(not VECTORS.is_file(), reason="needs ../shared/data/word_vectors")
def test_wordnets_vectors_find_voc_and_imagenet():
    classes = [
        line.strip() for line in (VECTORS.parent / "imagenet_classes.txt").read_text().splitlines() if line.strip()
    ]
    sheep, *rows = words.vectors(str(VECTORS), ["sheep", "diningtable", *classes])
    assert len(rows) == 1001
    nearness = dict(zip(classes, words.similarities(sheep[None], np.stack(rows[1:]))[0], strict=True))
    assert nearness["imagenet/n02412080_ram"] > 0.99
    assert nearness["imagenet/n02690373_airliner"] < 0.5
