"""Secrets leave no process: whatever is logged, journaled, sent, reported or said goes through `redact` first.

Addresses carry secrets in two places: `scheme://user:password@host`, and values of a query such as `?Signature=...`.
Others are known by what stands before them: `Bearer ...`, `AccountKey=...`, `aws_secret_access_key=...`, `hf_...`.
All become `***`; what is left still tells the scheme, the host, the path and the names of the query's keys.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_URL = re.compile(r"\w://[^\s\"<>]+")
#: user:password@ behind a scheme. A password may hold `@`, and in a database's address `/` too; `:5000/` is a port.
_LOGIN = re.compile(r"(?<=://)(?:[^/]*|[^/:@]*:(?!\d{1,5}(?:[/?#]|$)).*)@")
#: Keys of a query that carry a login: of S3, Google and Azure, and those that services invent.
_QUERY = re.compile(
    r"(?i)([?&;#](?:[\w.%-]*(?:signature|token|secret|passwo?r?d|passwd|pwd|credential|access_?key|auth|session)[\w.%-]*"
    r"|[\w.-]*key(?:_?id)?|sig|sas)=)[^&;#\s\"')\]}]+"
)
#: Secrets outside of addresses: in a request's header, in settings of Azure and S3, tokens that say whose they are.
_BARE = re.compile(
    r"(?i)(\bbearer\s+|(?:account_?key|shared_?access_?(?:key|signature)|secret_?access_?key|session_?token)"
    r"['\"]?\s*[=:]\s*['\"]?|\b(?=(?:hf|gh[pousr])_[a-z0-9]{30}))[^\s;,'\"&]+"
)


def redact(text: str) -> str:
    """`text` without the logins of any address in it, and without tokens that are known by their beginning.

    >>> redact("GET s3://me:pass@host/a.jpg?AWSAccessKeyId=AK&Expires=5 failed")
    'GET s3://***@host/a.jpg?AWSAccessKeyId=***&Expires=5 failed'
    """
    if "://" in text:
        text = _URL.sub(lambda url: _QUERY.sub(r"\1***", _LOGIN.sub("***@", url[0])), text)
    return _BARE.sub(r"\1***", text)


def redacted(value: T) -> T:
    """`value` with all text in it redacted, also the keys of mappings; lists and tuples become lists, as in JSON."""
    made: Any = value
    if isinstance(value, str):
        made = redact(value)
    elif isinstance(value, Mapping):
        made = {redacted(key): redacted(one) for key, one in value.items()}
    elif isinstance(value, list | tuple):
        made = [redacted(one) for one in value]
    return made


class _Record(logging.LogRecord):
    """A log record whose words are redacted whoever's handler writes it."""

    def getMessage(self) -> str:  # noqa: N802  # logging's name
        return redact(super().getMessage())


def _record(*arguments: Any, **named: Any) -> _Record:
    record = _Record(*arguments, **named)
    if record.exc_info and record.exc_info[1] is not None:  # a formatter takes the text that is there
        record.exc_text = redact("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"))
    return record


def install() -> None:
    """Redact, in this process from now on, every log record and the traceback of an error that nobody catches."""
    logging.setLogRecordFactory(_record)
    sys.excepthook = _say
    threading.excepthook = lambda hook: _say(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _say(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
