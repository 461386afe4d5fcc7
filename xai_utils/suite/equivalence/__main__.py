"""The command `python -m xai_utils.suite.equivalence`."""

import sys

from xai_utils.suite.equivalence.command import main

sys.exit(main())
