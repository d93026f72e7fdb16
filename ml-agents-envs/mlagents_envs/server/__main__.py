"""``python -m mlagents_envs.server`` is ``mlagents-env``."""

import sys

from mlagents_envs.server.command import main

sys.exit(main())
