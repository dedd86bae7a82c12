"""Post signed requests to a webhook."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from deltawitness.http_post import HttpTarget, Retries

__all__ = ["SIGNATURE_HEADER", "Webhook", "signature"]

SIGNATURE_HEADER = "Deltawitness-Signature"

ATTEMPTS = 5
"""Maximum number of requests for a batch of alerts."""

FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long."""

TIMEOUT = 10.0
"""Seconds without a byte from the receiver after which an attempt has failed."""


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of the signature header.

    Args:
        secret: the shared secret.
        timestamp: seconds since 1970, by which a receiver refuses old requests.
        body: the body of the request.

    >>> signature("secret", 1700000000, b"{}")[:20]
    't=1700000000,v1=b856'
    """
    signed = b"%d." % timestamp + body
    digest = hmac.new(secret.encode("utf-8", "surrogatepass"), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class Webhook:
    """A webhook.

    Args:
        url: its URL, which often has a secret in its path.
        secret: signs the requests; None: they have no signature.
        allow_http: accept `http` for a host that is not this machine.
        wait: waits for a number of seconds; a test sets it.

    Raises:
        ConfigurationError: the URL is not valid, or is `http` and not on this machine.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        allow_http: bool = False,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._target = HttpTarget(url, "the webhook", allow_http=allow_http)
        self._secret = secret or None
        self._wait = wait

    @property
    def destination(self) -> str:
        """Scheme and host of the URL."""
        return self._target.destination

    def post(self, body: str, key: str) -> int:
        """Post a body, and post it again after a failure that may pass.

        Args:
            body: the body, as JSON.
            key: the idempotency key.

        Returns:
            The number of requests.

        Raises:
            PostError: no request was accepted.
        """
        content = body.encode("utf-8", "surrogatepass")

        def headers() -> dict[str, str]:
            found = {"Idempotency-Key": key}
            if self._secret is not None:
                found[SIGNATURE_HEADER] = signature(self._secret, int(time.time()), content)
            return found

        return self._target.post(
            content, headers, Retries(ATTEMPTS, FIRST_WAIT, TIMEOUT, self._wait)
        )
