"""Before Ray is imported, here and in what the tests start: who joins has to show a token."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
