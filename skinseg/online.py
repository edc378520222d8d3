"""Whether a server can be reached, asked once and briefly."""

from __future__ import annotations

import urllib.error
import urllib.request

_TIMEOUT_S = 3.0


def reachable(url: str) -> bool:
    """Returns whether a server answers within three seconds, with whatever answer.

    Args:
        url: Of the server, http or https. Proxies of the environment are used.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError):
        return False
