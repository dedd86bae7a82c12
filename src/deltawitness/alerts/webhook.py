"""Post a signed request to a webhook, with retries. Neither the URL nor the secret is in an error text."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

from deltawitness.exceptions import ConfigurationError, DeltaWitnessError
from deltawitness.semconv import WITNESS_VERSION

__all__ = ["SIGNATURE_HEADER", "Webhook", "WebhookError", "signature"]

SIGNATURE_HEADER = "Deltawitness-Signature"

ATTEMPTS = 5
"""Maximum number of requests for a batch of alerts."""

FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT = 30.0
"""Maximum seconds between two attempts, also where the receiver asks for more."""

TIMEOUT = 10.0
"""Seconds without a byte from the receiver after which an attempt has failed."""


class WebhookError(DeltaWitnessError):
    """The receiver did not accept a request.

    Args:
        message: why, without the URL.
        is_refused: whether the receiver has refused it for good, so that it does not have the alerts.
        attempts: number of requests.
    """

    def __init__(self, message: str, *, is_refused: bool, attempts: int) -> None:
        super().__init__(message)
        self.is_refused = is_refused
        self.attempts = attempts


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of the signature header.

    Args:
        secret: the shared secret.
        timestamp: seconds since 1970, by which a receiver refuses old requests.
        body: the body of the request.

    >>> signature("secret", 1700000000, b"{}")[:32]
    't=1700000000,v1=0c9fef2ef08b4e42'
    """
    signed = b"%d." % timestamp + body
    digest = hmac.new(secret.encode("utf-8", "surrogatepass"), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would send the alerts and the signature to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


class Webhook:
    """A webhook.

    Args:
        url: its URL, which often has a secret in its path.
        secret: signs the requests; None: they have no signature.
        allow_http: accept `http` for a host that is not this machine.
        wait: waits for a number of seconds; a test sets it.

    Attributes:
        destination: scheme and host of the URL.

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
        parts = _parts(url)
        is_local = _is_loopback(parts.hostname or "")
        if parts.scheme == "http" and not (is_local or allow_http):
            msg = "the URL of the webhook is http: use https, or allow http (--allow-http)"
            raise ConfigurationError(msg)
        self._url = url
        self._secret = secret or None
        self._wait = wait
        self.destination = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        proxies = [urllib.request.ProxyHandler({})] if is_local else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def post(self, body: str, key: str) -> int:
        """Post a body, and post it again after a failure that may pass.

        Args:
            body: the body, as JSON.
            key: the idempotency key.

        Returns:
            The number of requests.

        Raises:
            WebhookError: no request was accepted.
        """
        content = body.encode("utf-8", "surrogatepass")
        pause = FIRST_WAIT
        attempt = 1
        while (failure := self._post_once(content, key)) is not None:
            if failure.is_refused or attempt == ATTEMPTS:
                raise self._error(failure, attempt)
            own = pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            self._wait(min(LONGEST_WAIT, max(failure.wait_seconds, own)))
            pause *= 2
            attempt += 1
        return attempt

    def _error(self, failure: _Failure, attempt: int) -> WebhookError:
        tries = f" after {attempt} attempts" if attempt > 1 else ""
        msg = f"{self.destination}: {failure.reason}{tries}"
        return WebhookError(msg, is_refused=failure.is_refused, attempts=attempt)

    def _post_once(self, content: bytes, key: str) -> _Failure | None:
        """Post a body once; return why the receiver has not accepted it, or None."""
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "User-Agent": f"deltawitness/{WITNESS_VERSION}",
        }
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = signature(self._secret, int(time.time()), content)
        request = urllib.request.Request(self._url, content, headers, method="POST")  # noqa: S310 - http(s) only
        try:
            with self._opener.open(request, timeout=TIMEOUT):
                return None  # the body of the answer is not needed
        except urllib.error.HTTPError as error:
            with error:
                return _failure_of(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _Failure(_reason(error))


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a request was not accepted.

    Attributes:
        reason: the status or the kind of error, without the URL.
        is_refused: whether the receiver has refused it for good.
        wait_seconds: how long the receiver asks to wait.
    """

    reason: str
    is_refused: bool = False
    wait_seconds: float = 0.0


_MAY_PASS = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


def _failure_of(error: urllib.error.HTTPError) -> _Failure:
    code = error.code
    if code < HTTPStatus.BAD_REQUEST:
        reason = f"the receiver answered {code}: redirects are not followed"
        return _Failure(reason, is_refused=True)
    is_refused = code < HTTPStatus.INTERNAL_SERVER_ERROR and code not in _MAY_PASS
    asked = error.headers.get("Retry-After", "") if error.headers else ""
    seconds = float(asked) if asked.isascii() and asked.isdigit() else 0.0
    return _Failure(f"the receiver answered {code}", is_refused, seconds)


def _reason(error: Exception) -> str:
    """Return the kind of an error. The texts of some have the URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    text = cause.strerror if isinstance(cause, OSError) else None
    return str(text) if text else type(cause).__name__


def _parts(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ConfigurationError: it is not a URL of `http` or `https`. The message does not have it.
    """
    msg = "the URL of the webhook is not valid: expected https://HOST/PATH"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises ValueError
    except ValueError:
        raise ConfigurationError(msg) from None
    if not is_valid or not url.isascii() or any(each <= " " or each == "\x7f" for each in url):
        raise ConfigurationError(msg)
    if "@" in parts.netloc:
        msg = "the URL of the webhook has a user name or a password, which is not supported"
        raise ConfigurationError(msg)
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
