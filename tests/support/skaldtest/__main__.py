import sys

# `python -m` runs this file as __main__; the tests import the package, so the registry is its own
from skaldtest import runner

sys.exit(runner.main(sys.argv[1:]))
