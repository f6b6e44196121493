"""Hooks from the configuration: found, imported, instantiated, or refused with the key that is wrong."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..config import HookEntry
from ..protocol.message import Sender
from .chain import Chain
from .glob import GlobError, Globs
from .link import Link

__all__ = ["BUILT_IN", "HookConfigError", "build"]

# The hooks that come with the gateway, by the name that a configuration uses.
BUILT_IN = {
    "arguments": "gateway.guard.arguments:ArgumentsHook",
    "injection": "gateway.guard.injection:InjectionHook",
    "pins": "gateway.guard.pins:PinsHook",
    "policy": "gateway.guard.policy:PolicyHook",
    "sanitize": "gateway.guard.sanitize:SanitizeHook",
}


class HookConfigError(ValueError):
    """A hook of the configuration that cannot be loaded.

    ``key``     the configuration key, such as ``hooks.1.options``
    ``message`` what is wrong and what was expected
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


def build(entries: Iterable[HookEntry], upstream: str) -> Chain:
    """The chain of an upstream: those entries whose ``upstreams`` patterns match its name.

    Raises HookConfigError for an entry that cannot be loaded.
    """
    links = []
    for index, entry in enumerate(entries):
        key = f"hooks.{index}"
        try:
            if upstream in Globs(entry.upstreams):
                links.append(_load(entry, key))
        except GlobError as error:
            raise HookConfigError(key + ".upstreams", str(error)) from error
    return Chain(links)


def _load(entry: HookEntry, key: str) -> Link:
    made = _find_class(entry.kind, key + ".kind")
    hook = _instantiate(made, entry, key + ".options")
    judge = getattr(hook, "on_message", None)
    if not callable(judge):
        raise HookConfigError(key + ".kind", f"{entry.kind!r} has no method on_message(message, exchange)")
    is_async = inspect.iscoroutinefunction(judge)
    if is_async and entry.timeout is None:
        raise HookConfigError(
            key + ".timeout", f"{entry.kind!r} is an async hook and needs a timeout, such as 2s: without a verdict in "
            "that time the message is blocked"
        )  # fmt: skip
    try:
        methods = Globs(entry.methods)
    except GlobError as error:
        raise HookConfigError(key + ".methods", str(error)) from error
    name = _name(hook, entry, key)
    senders = frozenset(Sender(direction) for direction in entry.directions)
    timeout = entry.timeout if is_async else None
    return Link(name, hook, judge, senders, methods, "*" in entry.methods, entry.mode == "shadow", timeout)


def _name(hook: Any, entry: HookEntry, key: str) -> str:
    """The name by which the hook is known; one that the configuration gives is the hook's own from then on."""
    own = getattr(hook, "name", None)
    if isinstance(own, str) and own and entry.name == entry.kind:
        return own
    try:
        hook.name = entry.name
    except AttributeError as error:
        raise HookConfigError(key + ".name", f"{entry.kind!r} does not let its name be set") from error
    return entry.name


def _find_class(kind: str, key: str) -> Callable[..., Any]:
    place = BUILT_IN.get(kind, kind)
    module_name, colon, class_name = place.partition(":")
    if not colon:
        near = difflib.get_close_matches(kind, BUILT_IN, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(BUILT_IN))
        raise HookConfigError(key, f"expected a built-in hook ({known}) or package.module:Class, not {kind!r}{hint}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise HookConfigError(key, f"cannot import module {module_name!r}: {type(error).__name__}: {error}") from error
    made = getattr(module, class_name, None)
    if made is None:
        public = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        near = difflib.get_close_matches(class_name, public, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise HookConfigError(key, f"module {module_name!r} has no class {class_name!r}{hint}")
    if not isinstance(made, type):
        raise HookConfigError(key, f"{place!r} is not a class")
    return made


def _instantiate(made: Callable[..., Any], entry: HookEntry, key: str) -> Any:
    options = dict(entry.options)
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        _check_options(signature, options, entry.kind, key)
    try:
        return made(**options)
    except Exception as error:
        raise HookConfigError(key, f"{entry.kind!r} did not start: {str(error) or type(error).__name__}") from error


def _check_options(signature: inspect.Signature, options: dict[str, Any], kind: str, key: str) -> None:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise HookConfigError(
                f"{key}.{name}", f"{kind!r} takes {', '.join(known) or 'no options'}, not {name!r}{hint}"
            )
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in options:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                continue
            raise HookConfigError(f"{key}.{parameter.name}", f"{kind!r} needs the option {parameter.name!r}")
