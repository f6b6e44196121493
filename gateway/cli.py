"""The command line: ``mcpgw run``, ``serve``, ``check``, ``doctor``, ``pins`` and ``token``.

Results go to stdout, progress and errors to stderr.  Exit 0 is fine, 1 failed, 2 bad usage or configuration.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click

from . import __version__

# Whatever only one command needs is imported there, so that the others start at once.
if TYPE_CHECKING:
    from .config import Config

__all__ = ["Running", "main"]

_UPSTREAM = "server"
_BAD = 2


class Running(Protocol):
    """A gateway that listens, as ``gateway.app.main`` announces it."""

    @property
    def admin_url(self) -> str:
        """The admin port's base URL."""
        ...

    def endpoint(self, upstream: str) -> str:
        """The URL that clients of an upstream use."""
        ...

    def describe(self) -> list[str]:
        """What runs, in lines for people."""
        ...


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcpgw")
def main() -> None:
    """A message-aware streaming gateway for the Model Context Protocol."""


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    from .config.units import duration

    if value is None:
        return None
    try:
        seconds = duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    if not 0 < seconds <= 36500 * 86400:
        raise click.BadParameter("expected more than nothing and at most a hundred years", context, parameter)
    return seconds


def _headers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for value in values:
        name, colon, text = value.partition(":")
        if not colon:
            raise click.BadParameter("expected NAME:VALUE", context, parameter)
        if name in headers:
            raise click.BadParameter(f"{name} is given twice", context, parameter)
        headers[name] = text.strip(" \t")
    return headers


_header_option = click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    multiple=True,
    callback=_headers,
    help="Send this header field to the server with every request; may be given again.",
)


@main.command()
@click.option("--upstream", "url", metavar="URL", required=True, help="Endpoint of the MCP server.")
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    metavar="N",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 = any free one.",
)
@click.option(
    "--allow-tool", "tools", metavar="GLOB", multiple=True, help="Allow these tools alone; may be given again."
)
@_header_option
@click.option(
    "--audit",
    metavar="FILE",
    default="var/audit.jsonl",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="Where calls are recorded.",
)
def run(url: str, host: str, port: int, tools: tuple[str, ...], headers: dict[str, str], audit: str) -> NoReturn:
    """Put the gateway before one MCP server, without a configuration file.

    Prints the endpoint, a fresh token, a snippet for an MCP client's settings, and a command that tries it.
    """
    from .config import ConfigErrors, Problem, single_upstream
    from .identity.tokens import new_token

    token, digest = new_token()
    try:
        config = single_upstream(
            url,
            port,
            digest,
            host=host,
            name=_UPSTREAM,
            headers=headers,
            allowed_tools=tools or ("*",),
            audit_path=audit,
        )
        mistakes = [Problem("command line", None, key, message) for key, message in _guard_mistakes(config)]
        if mistakes:
            raise ConfigErrors(mistakes)
    except ConfigErrors as error:
        _refuse(error)

    def announce(gateway: Running) -> None:
        _say(gateway)
        click.echo("\n".join(_introduction(gateway.endpoint(_UPSTREAM), token)))

    _serve(config, announce)


_config = click.option(
    "--config",
    "file",
    metavar="FILE",
    default="config/gateway.yaml",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="The configuration, YAML or JSON.",
)


@main.command()
@_config
def serve(file: str) -> NoReturn:
    """Run the gateway that a configuration file describes."""
    config = _load(file)

    def announce(gateway: Running) -> None:
        _say(gateway)
        for name in config.upstreams:
            click.echo(f"{name} {gateway.endpoint(name)}")

    _serve(config, announce)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False))
def check(file: str) -> None:
    """Validate a configuration file and explain what it means."""
    from .config import explain

    config = _load(file)
    for line in explain(config):
        click.echo(line)


@main.command()
@click.argument("url")
@_header_option
@click.option(
    "--timeout",
    "patience",
    metavar="DURATION",
    default="10s",
    show_default=True,
    callback=_duration,
    help="How long one request may take; all together end after about twelve times as long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def doctor(url: str, headers: dict[str, str], patience: float, as_json: bool) -> NoReturn:
    """Examine an MCP server, and say what to configure for it.

    Sends some fifty harmless requests, right and wrong ones. Calls no tool, and ends the sessions that it opens.
    """
    import asyncio

    from .config import ConfigErrors, single_upstream
    from .doctor import examine, render

    try:
        config = single_upstream(url, 0, "0" * 64, name=_UPSTREAM, headers=headers)
    except ConfigErrors as error:
        _refuse(error)
    click.echo(f"examining {url}; no tool is called", err=True)
    report = asyncio.run(examine(config.upstreams[_UPSTREAM], config.limits, patience=patience))
    click.echo(json.dumps(report.to_document(), indent=2) if as_json else render(report))
    sys.exit(0 if report.servable else 1)


@main.group()
def pins() -> None:
    """Approve the tools, prompts and instructions of servers, for the hook `pins`."""


@pins.command()
@_config
@click.argument("upstream", required=False)
def review(file: str, upstream: str | None) -> NoReturn:
    """Show how what a server offers differs from what was approved; all servers if none is named.

    Asks the servers themselves, with the configured headers. Calls no tool.
    """
    from .guard.pinning.lock import LockError
    from .review import OfferError, look, pinned, render, state_of

    config = _load(file)
    is_open = False
    for name in pinned(config) if upstream is None else [_known_upstream(config, upstream)]:
        try:
            items = look(config, name).items
        except (OfferError, LockError) as error:
            click.echo(f"{name}: {error}", err=True)
            is_open = True
            continue
        for line in render(name, items, colour=sys.stdout.isatty()):
            click.echo(line)
        if any(item.is_open for item in items):
            is_open = True
            click.echo(f"\nto approve: mcpgw pins approve {name} --all --as-of {state_of(items)}")
    sys.exit(1 if is_open else 0)


@pins.command()
@_config
@click.option("--all", "everything", is_flag=True, help="Approve all that is offered, and forget what is gone.")
@click.option("--by", metavar="WHO", envvar="USER", help="Who approves. Without it: `$USER`.")
@click.option("--as-of", "state", metavar="STATE", help="Only if this is still what `mcpgw pins review` showed.")
@click.argument("upstream")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def approve(
    file: str, everything: bool, by: str | None, state: str | None, upstream: str, names: tuple[str, ...]
) -> NoReturn:
    """Write what a server offers into its lock file: the tools and prompts of these names, or all.

    The word `instructions` stands for the server's instructions. A running gateway has to be restarted.
    """
    from .guard.pinning.lock import LockError, write
    from .review import OfferError, look, render, state_of
    from .review import approve as approved

    if everything == bool(names):
        raise click.UsageError("name what to approve, or give --all")
    if not by:
        raise click.UsageError("say with --by who approves")
    config = _load(file)
    _known_upstream(config, upstream)
    try:
        found = look(config, upstream)
    except (OfferError, LockError) as error:
        _fail(f"{upstream}: {error}")
    if state is not None and state != state_of(found.items):
        _fail(f"{upstream}: offers something else by now; nothing is approved: review it again")
    unknown = set(names) - {item.name or item.family.word for item in found.items}
    if unknown:
        _fail(f"{upstream}: does not offer {', '.join(map(ascii, sorted(unknown)))}; nothing is approved")
    chosen = [item for item in found.items if everything or (item.name or item.family.word) in names]
    at = datetime.datetime.now(datetime.UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
    sound = [item for item in chosen if not item.faults]
    for line in render(upstream, chosen, colour=sys.stdout.isatty()):
        click.echo(line)
    try:
        write(found.path, approved(found.lock, sound, by=by, at=at))
    except OSError as error:
        _fail(f"{found.path}: cannot be written: {error.strerror}")
    click.echo(f"\nwritten to {found.path}; restart the gateway")
    for item in chosen:
        if item.faults:
            click.echo(f"not approved: {item.family.word} {item.name!a}: {', '.join(item.faults)}", err=True)
    sys.exit(0 if len(sound) == len(chosen) else 1)


@main.command()
@click.argument("client")
@click.option("--expires", metavar="DURATION", callback=_duration, help="When the token expires from now, such as 90d.")
def token(client: str, expires: float | None) -> None:
    """Make a token for a client, and print what to put into the configuration."""
    from .config.values import CALLER_NAME
    from .identity.tokens import new_token

    if CALLER_NAME.fullmatch(client) is None:
        raise click.BadParameter("expected 1 to 63 letters, digits, '_', '.' and '-'", param_hint="CLIENT")
    secret, digest = new_token()
    lines = [
        f"token:  {secret}",
        f"sha256: {digest}",
        "",
        "# The token is for the client and is kept nowhere else; this is for the configuration:",
        "clients:",
        f"  {client if re.fullmatch('(?!true|false|null)[a-zA-Z][a-zA-Z_-]*', client) else json.dumps(client)}:",
        "    policy: default",
    ]
    if expires is None:
        lines.append(f'    token_sha256: "{digest}"')
    else:
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=expires)
        moment = until.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
        lines += ["    tokens:", f'      - sha256: "{digest}"', f'        expires: "{moment}"']
    click.echo("\n".join(lines))


def _load(file: str) -> Config:
    """The configuration, hooks and patterns included; exits with 2 where anything is wrong with it."""
    from .config import ConfigErrors, load

    try:
        return load(file, checks=(_guard_mistakes,))
    except ConfigErrors as error:
        _refuse(error)


def _guard_mistakes(config: Config) -> Iterator[tuple[str, str]]:
    """What only the hooks themselves and the pattern compilers can tell."""
    from .guard.glob import GlobError, Globs
    from .guard.loading import HookConfigError, build
    from .guard.uri import UriPatterns

    for position, entry in enumerate(config.hooks):
        upstream = next(name for name in config.upstreams if entry.runs_on(name))
        try:
            build((entry,), upstream)
        except HookConfigError as error:
            yield error.key.replace("hooks.0", f"hooks.{position}", 1), error.message
    kinds: dict[str, Callable[[tuple[str, ...]], Any]] = {
        "allowed_methods": Globs,
        "allowed_tools": Globs,
        "allowed_resources": UriPatterns,
        "allowed_prompts": Globs,
        "allowed_server_requests": Globs,
    }
    for name, policy in config.policies.items():
        for field, compile_patterns in kinds.items():
            patterns = getattr(policy, field)
            wrong = False
            for position, pattern in enumerate(patterns):
                try:
                    compile_patterns((pattern,))
                except GlobError as error:
                    wrong = True
                    yield f"policies.{name}.{field}.{position}", str(error)
            if wrong:
                continue
            try:
                compile_patterns(patterns)
            except GlobError as error:
                yield f"policies.{name}.{field}", str(error)


def _known_upstream(config: Config, upstream: str) -> str:
    if upstream not in config.upstreams:
        raise click.BadParameter(f"there are: {', '.join(config.upstreams)}", param_hint="UPSTREAM")
    return upstream


def _fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(1)


def _refuse(error: Exception) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(_BAD)


def _serve(config: Config, announce: Callable[[Running], None]) -> NoReturn:
    from .app import main as serve_until_stopped

    sys.exit(serve_until_stopped(config, announce=announce))


def _say(gateway: Running) -> None:
    for line in gateway.describe():
        click.echo(line, err=True)


def _introduction(endpoint: str, token: str) -> list[str]:
    """What somebody needs who has just started a gateway: endpoint, token, client settings, a proof that it works."""
    settings = {
        "mcpServers": {
            _UPSTREAM: {"type": "http", "url": endpoint, "headers": {"Authorization": f"Bearer {token}"}},
        }
    }
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "curl", "version": "1"},
        },
    }
    curl = [
        "curl", "-sS", endpoint, "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
        "-H", "Accept: application/json, text/event-stream", "-d", json.dumps(hello, separators=(",", ":")),
    ]  # fmt: skip
    return [
        f"endpoint  {endpoint}",
        f"token     {token}",
        "",
        "For an MCP client's settings:",
        json.dumps(settings, indent=2),
        "",
        "Try it:",
        shlex.join(curl),
    ]


if __name__ == "__main__":
    main()
