"""Prints the script that completes the console: the subcommand `completion`.

Tested by `tests/cli/test_completion.py`.
"""

import argparse
import os

from keras_cascade.cli.commands import Subcommands

_LOAD = """\
Print the script with which a shell completes subcommands, options and names.
To load it in each session, add one line:
  bash  eval "$(keras-cascade completion bash)"  to ~/.bashrc
  zsh   eval "$(keras-cascade completion zsh)"   to ~/.zshrc
  fish  keras-cascade completion fish | source   to ~/.config/fish/config.fish
"""


def add_completion(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "completion",
        help="Print the script for completion in a shell.",
        description=_LOAD,
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=_completion)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and exits, where a shell's script runs the process."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def _completion(arguments: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    script = shellcode(["keras-cascade"], shell=arguments.shell)
    print(script)  # noqa: T201
    return 0
