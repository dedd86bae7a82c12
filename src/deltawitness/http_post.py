"""Post JSON over HTTP with the standard library: no redirects, and no URL or secret in an error text."""

from __future__ import annotations

import http.client
import ipaddress
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import SplitResult, urlsplit

from deltawitness.exceptions import ConfigurationError, DeltaWitnessError
from deltawitness.semconv import WITNESS_VERSION

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

__all__ = ["HttpTarget", "PostError", "Retries"]

LONGEST_WAIT = 30.0
"""Maximum seconds between two attempts, also where the receiver asks for more."""


class PostError(DeltaWitnessError):
    """The receiver did not accept a request.

    Args:
        message: why, with scheme and host of the URL only.
        is_refused: whether the receiver has refused it for good, so that it does not have the content.
        attempts: number of requests.
    """

    def __init__(self, message: str, *, is_refused: bool, attempts: int) -> None:
        super().__init__(message)
        self.is_refused = is_refused
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is repeated after a failure that may pass.

    Attributes:
        attempts: maximum number of requests.
        first_wait: seconds before the second one; each further wait is twice as long.
        timeout: seconds without a byte from the receiver after which a request has failed.
        wait: waits for a number of seconds; a test sets it.
    """

    attempts: int
    first_wait: float
    timeout: float
    wait: Callable[[float], object] = time.sleep


class HttpTarget:
    """A URL that receives JSON.

    Args:
        url: the URL.
        what: what it is, for error messages, such as `the webhook`.
        allow_http: accept `http` for a host that is not this machine.

    Attributes:
        destination: scheme and host of the URL.

    Raises:
        ConfigurationError: the URL is not valid, or is `http` and not on this machine.
    """

    def __init__(self, url: str, what: str, *, allow_http: bool = False) -> None:
        parts = _parts(url, what)
        is_local = _is_loopback(parts.hostname or "")
        if parts.scheme == "http" and not (is_local or allow_http):
            msg = f"the URL of {what} is http: use https, or allow http"
            raise ConfigurationError(msg)
        self._url = url
        self.destination: str = f"{parts.scheme}://{parts.netloc}"
        proxies = [urllib.request.ProxyHandler({})] if is_local else []
        self._opener: OpenerDirector = urllib.request.build_opener(_NoRedirect, *proxies)

    def post(
        self,
        content: bytes,
        headers: Callable[[], Mapping[str, str]],
        retries: Retries,
        *,
        path: str = "",
    ) -> int:
        """Post content, and post it again after a failure that may pass.

        Args:
            content: the body, as JSON.
            headers: returns the headers of a request.
            retries: how often.
            path: is appended to the URL.

        Returns:
            The number of requests.

        Raises:
            PostError: no request was accepted.
        """
        pause = retries.first_wait
        attempt = 1
        while (failure := self._post_once(content, headers(), retries, path)) is not None:
            if failure.is_refused or attempt == retries.attempts:
                self._raise(failure, attempt)
            own = pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            retries.wait(min(LONGEST_WAIT, max(failure.wait_seconds, own)))
            pause *= 2
            attempt += 1
        return attempt

    def _raise(self, failure: _Failure, attempt: int) -> NoReturn:
        tries = f" after {attempt} attempts" if attempt > 1 else ""
        msg = f"{self.destination}: {failure.reason}{tries}"
        raise PostError(msg, is_refused=failure.is_refused, attempts=attempt)

    def _post_once(
        self, content: bytes, headers: Mapping[str, str], retries: Retries, path: str
    ) -> _Failure | None:
        """Post content once; return why the receiver has not accepted it, or None."""
        sent = {
            "Content-Type": "application/json",
            "User-Agent": f"deltawitness/{WITNESS_VERSION}",
            **headers,
        }
        try:
            request = urllib.request.Request(self._url + path, content, sent, method="POST")  # noqa: S310 - http(s) only
            with self._opener.open(request, timeout=retries.timeout):
                return None  # the body of the answer is not needed
        except urllib.error.HTTPError as error:
            with error:
                return _failure_of(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _Failure(_reason(error, retries.timeout))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would send the content and the credentials to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


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


def _reason(error: Exception, timeout: float) -> str:
    """Return the kind of an error. The texts of some have the URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {timeout:g} s"
    text = cause.strerror if isinstance(cause, OSError) else None
    return str(text) if text else type(cause).__name__


def _parts(url: str, what: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ConfigurationError: it is not a URL of `http` or `https`. The message does not have it.
    """
    msg = f"the URL of {what} is not valid: expected https://HOST/PATH"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises ValueError
    except ValueError:
        raise ConfigurationError(msg) from None
    if not is_valid or not url.isascii() or any(each <= " " or each == "\x7f" for each in url):
        raise ConfigurationError(msg)
    if "@" in parts.netloc:
        msg = f"the URL of {what} has a user name or a password, which is not supported"
        raise ConfigurationError(msg)
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
