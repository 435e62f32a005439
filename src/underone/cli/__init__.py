"""The commands: parse, call, print. No logic."""

import sys

import click
import torch

import underone
from underone.cli.commands import Commands
from underone.errors import UserError
from underone.modules import is_own, name_code
from underone.study.ranks import many_ranks

# The commands that torchrun's processes share; any other would run in each as if it were alone.
_FOR_RANKS = {"guide", "study"}
_CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 100,
}


@click.group(cls=Commands, context_settings=_CONTEXT)
@click.version_option(underone.__version__, prog_name="underone")
@click.option(
    "--code",
    multiple=True,
    metavar="MODULE:NAME",
    help="Run this code of mine where a file names it, as a reference names its extractor.",
)
@click.pass_context
def underone_command(context: click.Context, code: tuple[str, ...]) -> None:
    """A laboratory for diffusion sampling: train, sample in every way that matters, measure."""
    for each in code:
        if not is_own(each):
            raise UserError(f"--code takes a module:Name, got {each!r}")
    name_code(code)
    name = context.invoked_subcommand
    if many_ranks() and name not in _FOR_RANKS:
        raise UserError(
            f"underone {name} runs as one process, but RANK and WORLD_SIZE are set, as by "
            "torchrun: run it without torchrun, or unset them"
        )


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        underone_command.main(prog_name="underone", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)  # the help
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"{where}{error.strerror or error}: choose another place, or make this one usable")
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        _fail("this takes more memory than there is: ask for less at a time")


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    # On a CPU torch raises a RuntimeError, which only its message tells apart.
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error)


def _fail(message: str) -> None:
    sys.stderr.write(f"underone: {' '.join(message.split())}\n")
    sys.exit(2)
