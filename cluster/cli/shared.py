"""What every command shares: the options ``--config``, ``--state-dir`` and ``--json``, and where a node is found.

The options may stand before or behind the name of a command. A configuration file is read only by commands that
need one: to find the sockets of a node, its directory is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import click

from raydns.nodes import control
from raydns.nodes.paths import StateDir
from raydns.schemas.errors import UnreachableError

SYSTEM_CONFIG: Final = Path("/etc/raydns/raydns.yaml")
"""Read where nothing else is named and it is there."""
DEFAULT_STATE_DIR: Final = "~/.raydns"
STATE_DIR_VARIABLE: Final = "RAYDNS_SERVER__STATE_DIR"
COMMAND_TIMEOUT_S: Final = 65.0
"""Of commands that the controller carries out; the agent itself gives up after 60."""


@dataclass
class Settings:
    """What the shared options say."""

    json: bool = False
    config_option: str | None = None
    state_dir_option: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @cached_property
    def config_path(self) -> Path | None:
        """The configuration file: option, then RAYDNS_CONFIG, then the system's; ``None``: defaults."""
        named = self.config_option or self.environ.get("RAYDNS_CONFIG")
        if named:
            return Path(named)
        return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment with ``--state-dir`` in it, for the loader and for processes that we start."""
        environment = dict(self.environ)
        if self.state_dir_option:
            environment[STATE_DIR_VARIABLE] = self.state_dir_option
        return environment

    @cached_property
    def loaded(self) -> Any:
        """The configuration (``schemas.config.load.Loaded``); imported here since its models take 0.4 s."""
        from raydns.schemas.config.load import load

        loaded = load(self.config_path, self.environment)
        _refuse_bad_rules(loaded.config)
        return loaded

    @cached_property
    def state_dir(self) -> StateDir:
        """The node's directory: option, variable, configuration file, default."""
        named = self.environment.get(STATE_DIR_VARIABLE)
        if named:
            return StateDir(named)
        return StateDir(self.loaded.config.server.state_dir if self.config_path else DEFAULT_STATE_DIR)

    def call(self, socket: Path, method: str, timeout_s: float = 5.0, **params: Any) -> dict[str, Any]:
        """Calls a method of a process of this node; ``UnreachableError`` says how to start one."""
        try:
            return control.call_sync(socket, method, params, timeout_s)
        except UnreachableError as error:
            if isinstance(error.__cause__, FileNotFoundError) and not self.state_dir.run.exists():
                hint = "raydns up; or name the node's directory with --state-dir or its file with --config"
                raise UnreachableError("no node has run here", where=str(self.state_dir.path), hint=hint) from error
            raise

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """A command that the agent relays to the controller."""
        try:
            return self.call(self.state_dir.agent_socket, method, COMMAND_TIMEOUT_S, **params)
        except UnreachableError as error:
            if isinstance(error.__cause__, FileNotFoundError) and self.state_dir.node_socket.exists():
                hint = "it comes with Ray, some seconds after the ingress; `raydns status` shows how far that is"
                raise UnreachableError("the agent is not there yet", where=error.where, hint=hint) from error
            raise


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Settings).json = True


def _set_config(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Settings).config_option = value


def _set_state_dir(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Settings).state_dir_option = value


def _shared_options() -> list[click.Option]:
    return [
        click.Option(
            ["--config", "-c"],
            metavar="FILE",
            expose_value=False,
            callback=_set_config,
            help="Configuration file, YAML or TOML [variable: RAYDNS_CONFIG].",
        ),
        click.Option(
            ["--state-dir"],
            metavar="DIR",
            expose_value=False,
            callback=_set_state_dir,
            help="The node's state directory; wins over the configuration.",
        ),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Print JSON, errors too."),
    ]


class RaydnsCommand(click.Command):
    """A command that also takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()


class RaydnsGroup(click.Group):
    """A group of commands; it also takes the shared options, and its commands are ``RaydnsCommand``."""

    command_class = RaydnsCommand
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added: the order in which one needs them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; a misspelt one is refused with the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], list(self.commands), n=1, cutoff=0.5)
            said = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(self.commands)}"
            raise click.UsageError(f"{error.message.rstrip('.')}; {said}", ctx) from None


pass_settings: Callable[..., Any] = click.make_pass_decorator(Settings, ensure=True)


def _refuse_bad_rules(config: Any) -> None:
    """What only the forwarder can judge of a configuration, such as an upstream that is this server itself.

    Raises:
        ConfigProblems: everything that is wrong with section ``forward``.
    """
    if not config.forward.rules and not config.forward.bootstrap:
        return
    from raydns.actors.query.forward import own, rules
    from raydns.schemas.config.problems import ConfigProblems, Problem

    found = rules.problems(config.forward, own.OwnAddresses(own.from_config(config.server)))
    if found:
        raise ConfigProblems.of([Problem(e.where, "", e.message, e.hint) for e in found])
