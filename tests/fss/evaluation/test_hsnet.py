"""HSNet's episodes: facts that were seen when its published code drew them on its own list of fold 0."""

import pytest

from fss.evaluation import hsnet
from fss.evaluation.episodes import Episode, Way

#: The class of each pair of fold 0, in the order of HSNet's list; which image it is does not matter to what is drawn.
CLASSES = (
    "14254525132512113113145423423413454255511413521321142335332355314332544442321431321354554523121414112251225142551421"
    "34513533223135251321414242334453333325313332351145215553545515125144225323334531413233455333541223315321533522413425"
    "113433114331251535231411242111331353141353214541155533445344353152415111253344243323511413131414122523111245142335"
)
PAIRS = [(f"image{line}", int(class_id)) for line, class_id in enumerate(CLASSES)]
#: Lines of the supports of the first six episodes and of the last of 1,000; the sum of all; episodes that repeat one.
FACTS = {
    1: ([[243], [41], [90], [87], [71], [36]], [47], 179_154, 0),
    5: (
        [[243, 15, 335, 227, 318], [325, 77, 72, 327, 308], [225, 45, 67, 304, 24], [282, 247, 55, 33, 11],
         [290, 276, 287, 113, 144], [316, 293, 216, 38, 249]],
        [333, 156, 83, 306, 57], 865_458, 133,
    ),
}  # fmt: skip


@pytest.mark.parametrize("shots", FACTS)
def test_the_episodes_are_those_of_the_published_code(shots):
    drawn = hsnet.draw(PAIRS, shots=shots, count=1000)
    assert [(e.query, e.ways[0].class_id) for e in drawn] == [PAIRS[index % 346] for index in range(1000)]
    lines = [[int(name.removeprefix("image")) for name in e.ways[0].supports] for e in drawn]
    repeated = sum(len({*supports}) < shots for supports in lines)
    assert (lines[:6], lines[-1], sum(map(sum, lines)), repeated) == FACTS[shots]


def test_a_longer_list_extends_a_shorter_one_and_a_seed_changes_it():
    assert hsnet.draw(PAIRS, shots=2, count=40)[:9] == hsnet.draw(PAIRS, shots=2, count=9)
    assert hsnet.draw(PAIRS, shots=2, count=9, seed=1) != hsnet.draw(PAIRS, shots=2, count=9)


def test_the_query_is_never_its_own_support():
    pairs = [("a", 3), ("b", 3)]
    assert hsnet.draw(pairs, shots=3, count=2) == [
        Episode(0, "a", (Way(3, ("b",) * 3),)),
        Episode(1, "b", (Way(3, ("a",) * 3),)),
    ]


def test_a_class_of_one_image_is_refused():
    with pytest.raises(ValueError, match="expected at least two images of each class, class 2 has one"):
        hsnet.draw([("a", 1), ("b", 1), ("a", 2)], shots=1, count=1)


def test_lists_are_read_and_others_refused():
    assert hsnet.read(b"2007_000033__01\n2007_000061__04\n") == [("2007_000033", 1), ("2007_000061", 4)]
    for data, told in ((b"", "'an empty file'"), (b"2007_000033__01\n2007_000061\n", "'2007_000061'")):
        with pytest.raises(ValueError, match=f"expected lines NAME__CLASS such as 2007_000033__01, got {told}"):
            hsnet.read(data)
