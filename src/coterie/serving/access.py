"""Who may reach a server: addresses to listen on, and keys. Needs no package."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from coterie.errors import ConfigError, ConflictError

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_SHORTEST_KEY = 16


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConflictError: if the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConflictError(
            f"{host} port {port} must be free to listen on, found: {error}; choose another."
        ) from error


def check_host(host: str, keys: Sequence[str]) -> None:
    """That nobody beyond this machine can ask without a key.

    Raises:
        ConfigError: if somebody could.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"beyond this machine a key must be asked for, found none for {host!r:.60}; set the"
            " variable of the key, or listen on 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine, whoever resolves it.

    Example:
        >>> [is_loopback(one) for one in ("localhost", "127.0.0.2", "::1", "127.evil.example")]
        [True, True, True, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_keys(given: str | Sequence[str] | None) -> list[str]:
    """Keys, each long enough.

    Raises:
        ConfigError: if one is not.
    """
    keys = [given] if isinstance(given, str) else list(given or ())
    shortest = min(map(len, keys), default=_SHORTEST_KEY)
    if shortest >= _SHORTEST_KEY:
        return keys
    # Not the key itself.
    raise ConfigError(
        f"a key must have at least {_SHORTEST_KEY} signs, found {shortest}; choose a longer one, as"
        " from openssl rand -hex 32."
    )


def given_keys(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """What a request's headers give as its key."""
    given = [value for name, value in headers if name == b"x-api-key"]
    bearers = [value for name, value in headers if name == b"authorization"]
    return given + [one[7:] for one in bearers if one[:7].lower() == b"bearer "]
