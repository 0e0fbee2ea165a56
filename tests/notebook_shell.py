"""A notebook's shell without its server: it runs cells, and keeps outputs."""

from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.io import capture_output
from traitlets.config import Config


class ZMQInteractiveShell(InteractiveShell):
    """Has the name by which libraries tell a notebook."""


def make_shell():
    """Returns the shell of this process; `run` runs cells in it."""
    config = Config()
    config.HistoryManager.enabled = False
    shell = ZMQInteractiveShell.instance(
        config=config, display_pub_class=CapturingDisplayPublisher
    )
    shell.display_pub.outputs = []
    return shell


def run(cell, **names):
    """Runs a cell.

    Returns:
        What it printed, and the outputs that it displayed, each a dict of
        MIME type to text.
    """
    shell = make_shell()
    shell.user_ns.update(names)
    with capture_output(display=False) as captured:
        shell.run_cell(cell).raise_error()
    return captured.stdout, [one["data"] for one in shell.display_pub.outputs]
