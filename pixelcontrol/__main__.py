"""`python -m pixelcontrol` is the command `pixelcontrol`."""

import sys

from pixelcontrol.cli import main

if __name__ == "__main__":
    sys.exit(main())
