"""Which regions become a task, by the pairing's name.

A pairing is found by the name of its module here, which has `Keys`, a `Rules`, and

* `draw(table, keys, *, seed, queries=None) -> Sequence[pairs.Pairing]`, a group's tasks;
* `count(table, keys, queries) -> int`, how many those are at most, whatever the seed.
"""
