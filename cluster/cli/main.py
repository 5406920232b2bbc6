"""The entry: the tree of commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from . import cache, config, life, node, query, scale, status, zone
from .exits import INTERRUPTED, MEANING, OK, USAGE, exit_code
from .output import emit_error
from .shared import RaydnsGroup, Settings

_EXITS = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in MEANING.items()) + "."


@click.group(cls=RaydnsGroup, epilog=_EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raydns", message="raydns %(version)s")
def raydns() -> None:
    """A DNS platform that runs as a cluster of Ray actors."""


for _command in (
    life.run,
    life.up,
    life.down,
    node.node,
    status.status,
    query.query,
    zone.zone,
    scale.scale,
    cache.cache,
    config.config,
):
    raydns.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code; every error is told in one line, never as a traceback."""
    settings = Settings()
    try:
        code = raydns.main(list(arguments), prog_name="raydns", standalone_mode=False, obj=settings)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; what Python still holds must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except click.ClickException as error:
        emit_error(error, as_json=settings.json or "--json" in arguments)
        return USAGE
    except Exception as error:
        if os.environ.get("RAYDNS_DEBUG"):
            traceback.print_exc()
        emit_error(error, as_json=settings.json)
        return exit_code(error)
    return code if isinstance(code, int) else OK


def main() -> None:
    """Console script ``raydns``."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
