"""What a remote store's failures mean, and work on one that is done again while its failures are such as pass.

Stores answer in exceptions of their own; here they become few: a missing file is ``FileNotFoundError``, what may not
be read ``PermissionError``, and what concerns the whole store (no answer, credentials that are not accepted)
``StoreError``, which no image is to blame for. Each is one line, without secrets.
"""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from clipsieve.core.text import printable, without_password
from clipsieve.errors import StoreError

T = TypeVar("T")

ATTEMPTS = 4
"""How often a piece of work is tried, on top of what the client of the store does by itself."""

_FIRST_WAIT = 0.2
"""Seconds before the second attempt; each further wait is twice as long, and by up to a half longer."""

_PASSING = {
    "ClientConnectionError", "ClientPayloadError", "ConnectionError", "FSTimeoutError", "HTTPClientError",
    "IncompleteRead", "IncompleteReadError", "ResponseParserError", "ServiceRequestError", "ServiceResponseError",
    "ShortReadError", "Timeout", "TimeoutError", "TransportError",
}  # fmt: skip
"""Classes of failures, by name, that another attempt may not meet again."""

_UNREACHABLE = {"ClientConnectorError", "ConnectError", "EndpointConnectionError"}
"""Of those such as the client of the store has tried often enough."""

_BUSY = {errno.EBUSY, errno.ECONNRESET, errno.EPIPE, errno.EREMOTEIO, errno.ETIMEDOUT}
_BUSY_STATUS = {408, 429, 500, 502, 503, 504}

_CREDENTIALS = {
    "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError", "NoCredentialsError",
    "PartialCredentialsError", "ProfileNotFound", "RefreshError", "SSOTokenLoadError", "UnauthorizedSSOTokenError",
}  # fmt: skip
_MISSING_CREDENTIALS = {"DefaultCredentialsError", "NoCredentialsError", "PartialCredentialsError"}
_ENVIRONMENT = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_CONNECTION_STRING",
}
"""Of each protocol the variables of the environment with which every verb works."""

_DETAILS = re.compile(r"\n(RequestId:|ErrorCode:|Content:|For more information|Cannot access content).*", re.DOTALL)
"""What Azure and Hugging Face add to their messages in lines of their own."""

_CREDENTIAL_CODES = {
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "RequestExpired",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnrecognizedClientException",
}  # fmt: skip

_STORE_CODES = {
    "AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    "InvalidSecurity", "NotSignedUp", "PermanentRedirect",
}  # fmt: skip
"""Codes of S3 by which the account or the region is refused, whatever file is asked for."""


class ShortReadError(OSError):
    """Fewer bytes came than the file has there."""


def retrying(url: str, work: Callable[[], T]) -> T:
    """What ``work`` gives, which may be done more than once; ``url`` names in errors what it is about."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except Exception as failure:  # each store has its own
            if attempt == ATTEMPTS or not passes(failure) or _named(failure, _UNREACHABLE):
                raise _meant(url, failure) from failure
            time.sleep(_FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(1, 1.5))
    raise AssertionError


def _meant(url: str, failure: Exception) -> Exception:
    """The failure as those who read and write files know it."""
    answered = status(failure)
    if isinstance(failure, (FileExistsError, IsADirectoryError, StoreError)):
        return failure
    # fsspec says so of whatever a web server refuses, and of one that does not answer.
    if isinstance(failure, FileNotFoundError) and answered in (None, 404, 410) and not passes(failure):
        return failure
    where, said = shown(url), in_words(failure)
    if _named(failure, {"RepositoryNotFoundError"}):  # of Hugging Face, whatever its status
        return FileNotFoundError(errno.ENOENT, said)
    if isinstance(failure, FileNotFoundError) and failure.__cause__ is not None:
        said = in_words(failure.__cause__) if answered is None else f"HTTP status {answered}"
    if option := _unknown_option(failure):
        protocol = url.partition("://")[0]
        return StoreError(f"{where}: storage_options.{protocol} has no option {option!r}; check its name")
    if isinstance(failure, ValueError) and "endpoint" in said.lower():
        return StoreError(f"{where}: {said}; write the endpoint_url with http:// or https:// and a host")
    if _named(failure, _MISSING_CREDENTIALS):
        hint = _ENVIRONMENT.get(url.partition("://")[0], "the environment")
        return StoreError(f"{where}: no credentials were found ({said}); set them by {hint}, then run it again")
    if _named(failure, _CREDENTIALS) or _code(failure) in _CREDENTIAL_CODES or answered == 401:
        return StoreError(f"{where}: the credentials are not accepted ({said}); renew or set them, then run it again")
    if _code(failure) in _STORE_CODES:
        return StoreError(f"{where}: the store refuses ({said}); check the account and the region, then run it again")
    if isinstance(failure, PermissionError) or answered == 403 or said.startswith("Forbidden: "):  # gcsfs has no class
        return PermissionError(errno.EACCES, f"access denied ({said})")
    if answered == 404:
        return FileNotFoundError(errno.ENOENT, said)
    if isinstance(failure, ImportError):
        return StoreError(f"{where}: {said}")
    if passes(failure):
        return StoreError(f"{where}: the store does not answer ({said}); when it does, run the same command again")
    return failure if isinstance(failure, ValueError) else OSError(said)


def _unknown_option(failure: BaseException) -> str | None:
    """The name that a filesystem, or the client beneath it, does not know among the options that it was given."""
    if not isinstance(failure, TypeError):
        return None
    named = re.search(r"unexpected keyword argument '([^']+)'", str(failure))
    return named[1] if named else None


def unusable(url: str, failure: Exception) -> StoreError:
    """Why there is no filesystem for ``url``: wrong options, or credentials that are none."""
    meant = _meant(url, failure)
    if isinstance(meant, StoreError):
        return meant
    if isinstance(failure, TypeError):
        return StoreError(f"{shown(url)}: storage_options do not fit the store")
    hint = _ENVIRONMENT.get(url.partition("://")[0], "the environment")
    return StoreError(f"{shown(url)}: the store cannot be used ({in_words(failure)}); set {hint} or storage_options")


def in_words(failure: BaseException) -> str:
    """One short line of what a failure says, without passwords and signatures in URLs."""
    said = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
    return shown(" ".join(_DETAILS.sub("", str(said)).split()))[:200] or type(failure).__name__


def shown(text: str) -> str:
    """A URL, or a text with some in it, without passwords and signatures."""
    return printable(re.sub(r"(://[^\s?'\"]*)\?[^\s'\"]*", r"\1?...", without_password(text)))


def passes(failure: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(failure, PermissionError):
        return False
    if isinstance(failure, OSError) and failure.errno in _BUSY:
        return True
    return _named(failure, _PASSING) or status(failure) in _BUSY_STATUS


def _named(failure: BaseException, names: set[str]) -> bool:
    return any(parent.__name__ in names for one in _causes(failure) for parent in type(one).__mro__)


def status(failure: BaseException) -> int | None:
    """The status of HTTP that a failure stands for, where its class or that of a cause keeps one."""
    names = ("status", "status_code", "code")
    told = (of for one in _causes(failure) for of in (one, getattr(one, "response", None)))
    found = (str(getattr(one, name, None)) for one in told for name in names)
    told_by_s3 = _answer_of_s3(failure).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return next((int(value) for value in found if value.isdigit()), told_by_s3)


def _code(failure: BaseException) -> str | None:
    """The code by which S3 names an error."""
    code: str | None = _answer_of_s3(failure).get("Error", {}).get("Code")
    return code


def _answer_of_s3(failure: BaseException) -> dict[str, Any]:
    """What S3's client keeps of the answer; empty for any other failure."""
    kept = (getattr(one, "response", None) for one in _causes(failure))
    return next((response for response in kept if isinstance(response, dict)), {})


def _causes(failure: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = failure
    while one is not None:
        yield one
        one = one.__cause__
