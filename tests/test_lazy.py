"""What is worked out when it is first asked for: once, and not by one thread at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor

from nearfar.ldn import lazy


class Waiting:
    """Its value comes when the other's is being worked out too."""

    def __init__(self, both):
        self.both, self.made = both, 0

    @lazy
    def value(self):
        self.both.wait(5)
        self.made += 1
        return self.made


def test_two_objects_are_worked_on_at_the_same_time_and_each_once():
    both = threading.Barrier(2)
    objects = [Waiting(both), Waiting(both)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda one: one.value, objects)) == [1, 1]
    assert [one.value for one in objects] == [1, 1]
