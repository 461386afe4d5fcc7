"""`python -m xai_utils.suite verify`: see `verify`."""

import sys

from xai_utils.suite.verify import main

if __name__ == "__main__":
    sys.exit(main())
