"""``python -m qvec`` is ``qvec``."""

import sys

from qvec.cli import main

if __name__ == "__main__":
    sys.exit(main())
