"""The plan of `make chaos` is a function of its seed, and leaves out no kind of fault."""

from tests.chaos.plan import KINDS, drawn

ROUNDS = range(3 * len(KINDS))


def test_a_seed_and_a_number_say_all():
    assert [drawn(7, number) for number in ROUNDS] == [drawn(7, number) for number in ROUNDS]
    assert [drawn(7, number).faults for number in ROUNDS] != [drawn(8, number).faults for number in ROUNDS]


def test_every_kind_comes_in_as_many_rounds_as_there_are_kinds():
    for start in (0, len(KINDS)):
        rounds = [drawn(1, start + number) for number in range(len(KINDS))]
        assert {(fault.target, fault.way) for one in rounds for fault in one.faults} == set(KINDS)


def test_turns_have_orders_of_their_own():
    first, second = ([drawn(1, turn * len(KINDS) + n).faults for n in range(len(KINDS))] for turn in (0, 1))
    assert first != second


def test_a_round_has_one_or_two_faults_in_the_order_of_their_moments():
    rounds = [drawn(3, number) for number in ROUNDS]
    assert {len(one.faults) for one in rounds} == {1, 2}
    for one in rounds:
        moments = [fault.moment for fault in one.faults]
        assert moments == sorted(moments)
        assert 0 < moments[0] <= moments[-1] < 1
        assert all(1 <= fault.seconds <= 20 for fault in one.faults)


def test_a_store_is_struck_only_where_the_run_has_one():
    rounds = [drawn(3, number) for number in ROUNDS]
    assert all(one.bucket for one in rounds if any(fault.target == "store" for fault in one.faults))
    assert {one.bucket for one in rounds} == {True, False}
