"""Makes `python -m keras_cascade` the same as `keras-cascade`."""

import sys

from keras_cascade.cli import main

if __name__ == "__main__":
    sys.exit(main())
