"""What was used last stays."""

from cluster.web.recent import Recent


def test_those_used_longest_ago_go():
    kept = Recent(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert (kept.get("b"), kept.get("a"), kept.get("c")) == (None, 1, 3)
    assert kept.items() == [("a", 1), ("c", 3)]
    assert kept.last() == "c"
    kept.put("a", 4)
    assert kept.items() == [("c", 3), ("a", 4)]
    assert Recent(1).last() is None


def test_all_together_are_not_too_heavy():
    kept = Recent(9, heaviest=10, weigh=len)
    kept.put("a", "12345")
    kept.put("b", "12345")
    assert len(kept) == 2
    kept.put("c", "1")
    assert [key for key, _ in kept.items()] == ["b", "c"]
    kept.put("d", "1" * 11)
    assert [key for key, _ in kept.items()] == ["d"]
