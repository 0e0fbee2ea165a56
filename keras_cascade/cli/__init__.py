"""The `keras-cascade` command: a module a subcommand, over the whole package.

`entry.py` reads the arguments and runs what they ask for.
"""

from keras_cascade.cli.entry import main as main
