"""`python -m xai_utils.suite verify`, `… answer` and `… weights`: see the modules of these names."""

import sys

from xai_utils.suite import answer, verify, weights

COMMANDS = {"answer": answer.main, "weights": weights.main}

if __name__ == "__main__":
    command = COMMANDS.get("".join(sys.argv[1:2]))
    sys.exit(command(sys.argv[2:]) if command else verify.main())
