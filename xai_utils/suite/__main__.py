"""`python -m xai_utils.suite verify` and `python -m xai_utils.suite answer`: see the modules of these names."""

import sys

from xai_utils.suite import answer, verify

if __name__ == "__main__":
    sys.exit(answer.main(sys.argv[2:]) if sys.argv[1:2] == ["answer"] else verify.main())
