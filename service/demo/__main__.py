"""`python -m service.demo`."""

import sys

from service.demo import main

sys.exit(main())
