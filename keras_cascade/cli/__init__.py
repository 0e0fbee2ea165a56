"""Runs the `keras-cascade` command, with a module for each subcommand.

`entry.py` reads the arguments and runs what they ask for.
"""

from keras_cascade.cli.entry import main as main
