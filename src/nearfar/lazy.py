"""An attribute that is worked out when it is first asked for, by as many threads at once as there are objects.

`functools.cached_property` lets one thread at a time work, whatever the object (before Python 3.12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazy(Generic[Value]):
    """Decorates a method without arguments; its value then lies in the object under the method's name."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        value = self.make(instance)
        instance.__dict__[self.name] = value
        return value
