"""The user's `module:function` names, imported and called with errors that say whose fault it was."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from compile.errors import ConfigError, LockstepError

END = object()


def function(name: str, role: str) -> Callable[..., Any]:
    """The function behind `module:function`; ConfigError says which half does not exist."""
    module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(f"{role} `{name}`: importing `{module_name}` raised {_said(error)}") from error
    found = getattr(module, function_name, None)
    if not callable(found):
        raise ConfigError(f"{role} `{name}`: `{module_name}` has no function `{function_name}`")
    return guarded(found, f"{role} `{name}`")


def guarded(call: Callable[..., Any], what: str) -> Callable[..., Any]:
    """`call`, with whatever it raises turned into a ConfigError that names it."""

    def run(*args: Any) -> Any:
        try:
            return call(*args)
        except LockstepError:
            raise
        except Exception as error:
            raise ConfigError(f"{what} raised {_said(error)}") from error

    return run


def each(items: Iterable[Any], what: str) -> Iterator[Any]:
    """The items, with whatever the user's generator raises on the way turned into a ConfigError that names it."""
    following = guarded(partial(next, iter(items), END), what)
    while (item := following()) is not END:
        yield item


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
