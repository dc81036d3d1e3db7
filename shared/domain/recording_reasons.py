"""Reasons why the download of a recording failed. Events and dead letters have them, so a name never changes."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reason why one attempt failed."""

    NOT_FOUND = "not_found"
    EMPTY = "empty"
    NOT_READY = "not_ready"
    GROWING = "growing"
    REDIRECTED = "redirected"
    UNREACHABLE = "unreachable"
    HOST_NOT_FOUND = "host_not_found"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_WRONG_HOST = "certificate_wrong_host"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    CERTIFICATE_INVALID = "certificate_invalid"
    TLS_FAILED = "tls_failed"
    HEADER_TOO_LONG = "header_too_long"
    INVALID_RESPONSE = "invalid_response"
    STALLED = "stalled"
    INTERRUPTED = "interrupted"
    UNEXPECTED_STATUS = "unexpected_status"
    NOT_ALLOWED = "not_allowed"
    LOGIN_PAGE = "login_page"
    NOT_A_RECORDING = "not_a_recording"
    TRUNCATED = "truncated"
    LENGTH_MISMATCH = "length_mismatch"  # never raised: jobs of the first release have it
    NO_AUDIO = "no_audio"
    SHORTER_THAN_CALL = "shorter_than_call"
    COMPRESSED = "compressed"
    TOO_LARGE = "too_large"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    PATH_NOT_ALLOWED = "path_not_allowed"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    NO_RECORDING_LINK = "no_recording_link"
    UNKNOWN_SOURCE = "unknown_source"
    ARCHIVE_UNAVAILABLE = "archive_unavailable"
    NO_SPACE = "no_space"
    INTERNAL_ERROR = "internal_error"
