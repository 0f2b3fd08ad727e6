"""The command ``psy-doit``. Commands are loaded when they are used, so that listing tasks is quick."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module

import click

from psyrun import __version__
from psyrun.errors import PsyrunError, TemporaryError, trouble
from psyrun.interrupts import be_heard, be_over
from psyrun.taskfiles import COMMANDS, TASKDIR

_INTERNAL = 70  # sysexits.h: EX_SOFTWARE
_OF_THE_GROUP = ("-h", "--help", "--version")


class Commands(click.Group):
    """The group of all commands; words that are no command are names of tasks to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"psyrun.commands.{cmd_name}")
        if cmd_name != "run":  # it still has much to import, and says itself from when on there is something to lose
            be_heard()
        command: click.Command = module.command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` before words that begin with no command."""
        own, rest = _own_options(args or ["--help"])
        word = next((w for w in rest if not w.startswith("-")), None)
        if rest and rest[0] not in COMMANDS and (word is not None or rest[0] not in _OF_THE_GROUP):
            rest = ["run", *rest]
        args = [*own, *rest]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _own_options(args: list[str]) -> tuple[list[str], list[str]]:
    own: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--taskdir":
            own += [word, *[w for w in [next(words, None)] if w is not None]]
        elif word.startswith("--taskdir="):
            own.append(word)
        else:
            rest.append(word)
    return own, rest


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--taskdir",
    type=click.Path(file_okay=False),
    default=TASKDIR,
    show_default=True,
    help="Where the task files are.",
)
@click.version_option(__version__, prog_name="psy-doit")
@click.pass_context
def cli(ctx: click.Context, taskdir: str) -> None:
    """Run one model over many parameter values, and never lose a finished one.

    A file psy-tasks/task_NAME.py defines the parameter space and the function; `psy-doit new NAME` writes one.
    `psy-doit NAME` computes what is missing and merges everything into psy-work/NAME/result.npz.

    Exit status: 0 all done, 1 some items failed, 2 task file or option wrong, 3 no such task, 4 refused so as not to
    lose or mix results, 70 a fault of psyrun, 75 temporary trouble, 124 the time of `wait` is over, 130 interrupted.
    """
    from pathlib import Path  # slow to load, and help does not need it

    ctx.obj = Path(taskdir)


def main() -> None:
    """Run the command line, and leave."""
    _mend_standard_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent may have it ignored; then no exit status can be had
    status = _status()
    be_over()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # A task file started it; Python would wait for it.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _status() -> int:
    """Run a command; return the exit status."""
    try:
        status = cli.main(standalone_mode=False)
    except PsyrunError as error:
        _complain(str(error))
        return error.exit_code
    except click.exceptions.Abort:
        _complain("interrupted")
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        _complain(str(trouble(error.filename or "the system", error)))
        return TemporaryError.exit_code
    except Exception:
        import traceback

        traceback.print_exc()
        _complain("this is a fault of psyrun, not of yours; nothing on record is lost. Please report the lines above")
        return _INTERNAL
    return status if isinstance(status, int) else 0


def _mend_standard_streams() -> None:
    """Open what the caller closed: files opened later would get the numbers, and what is printed would go there."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _complain(text: str) -> None:
    click.echo(f"psy-doit: {text}", err=True)
