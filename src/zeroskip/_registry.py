"""One registry for kernels, formats, pruners and whatever else is looked up by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ._errors import InvalidArgument

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, in the order they were registered.

    A registry may name a package to discover: its modules are imported on the first look-up, and each registers what it
    holds. A module that cannot be imported is kept in `unavailable` with the reason, never dropped in silence.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self.unavailable: dict[str, str] = {}
        self._package = package
        self._discovered = package is None
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register `item`; a name can be taken once."""
        if name in self._items:
            raise InvalidArgument(f"register {self.kind}: {name!r} is registered already; choose another name.")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda item: self.add(name, item)

    def get(self, name: str) -> T:
        """The item called `name`.

        Raises:
            InvalidArgument: If there is none; the message lists the names there are.
        """
        self._discover()
        try:
            return self._items[name]
        except KeyError:
            known = ", ".join(sorted(self._items))
            reason = f" ({self.unavailable[name]})" if name in self.unavailable else ""
            raise InvalidArgument(f"{self.kind} {name!r} is not known{reason}; choose one of: {known}.") from None

    def names(self) -> list[str]:
        self._discover()
        return list(self._items)

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._items

    def __iter__(self) -> Iterator[T]:
        self._discover()
        return iter(self._items.values())

    def __len__(self) -> int:
        self._discover()
        return len(self._items)

    def _discover(self) -> None:
        if self._discovered or self._package is None:
            return
        self._discovered = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith("_"):
                continue
            try:
                importlib.import_module(f"{self._package}.{module.name}")
            except ImportError as error:
                self.unavailable[module.name] = str(error)
