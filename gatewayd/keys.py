"""The format of an API key: `gw_` + 8-character public id + `_` + 22 characters of secret + 6 of checksum.

    gw_ab12cd34_5Zt0kq8m2Y7nWb1RfXc9sd3JgHxVq4
       `------' `--------------------'`----'
       public   131 bits of secret    CRC-32 of all before it, in base 62

The checksum lets a mistyped or made-up key be refused without a look-up, and lets a secret scanner tell a key from a
string that resembles one (GitHub's tokens do the same). It is no protection against anyone: the secret is. What is
stored is the SHA-256 of the whole key; with 131 random bits a slow hash would add cost and no strength.

A token of the admin API is made the same way and begins with `gwt_`, so that neither is ever taken for the other.

A key that was imported is a secret of somebody's own making. It holds no public id: where one is asked for, its name is
`sha256:` and its digest.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterator

PREFIX = "gw_"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# No vowels and no look-alikes (0/o, 1/l): public ids are read aloud and never spell a word.
_PUBLIC_ALPHABET = "23456789bcdfghjkmnpqrstvwxyz"
PUBLIC_LENGTH = 8
_SECRET_LENGTH = 22  # log2(62) * 22 = 131 bits
_CHECKSUM_LENGTH = 6  # 62**6 > 2**32
KEY_LENGTH = len(PREFIX) + PUBLIC_LENGTH + 1 + _SECRET_LENGTH + _CHECKSUM_LENGTH

_KEY = re.compile(rf"gw_([a-z0-9]{{{PUBLIC_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}".encode())


TOKEN_PREFIX = "gwt_"  # noqa: S105  # what all of them begin with
_TOKEN = re.compile(rf"gwt_([a-z0-9]{{{PUBLIC_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}".encode())

# What may be a key made elsewhere: visible ASCII, which passes unharmed in a header. The least that callers may show
# is below the least that an import takes, since keys that come as digests are of their maker's length.
_FOREIGN = re.compile(rb"[\x21-\x7e]{16,512}")
_DIGEST_NAME = "sha256:"


def new_key(public_id: str | None = None) -> tuple[str, str]:
    """A fresh key as `(public_id, key)`, or a new one under this id. `key` is shown once, `digest(key)` is stored."""
    public_id = public_id or new_public_id()
    return public_id, _with_secret(PREFIX + public_id)


def new_token(public_id: str) -> str:
    """A fresh token of the admin API, shown once; `digest(token)` is stored."""
    return _with_secret(TOKEN_PREFIX + public_id)


def is_token(shown: bytes) -> bool:
    """Whether it has the form of a token and a right checksum. Says nothing of whether the token exists."""
    return _TOKEN.fullmatch(shown) is not None and _has_checksum(shown)


def new_public_id() -> str:
    """8 characters that name a thing in the admin API: of a key, or with a prefix such as `svc_` of another object."""
    return "".join(secrets.choice(_PUBLIC_ALPHABET) for _ in range(PUBLIC_LENGTH))


def drawn_public_ids() -> Iterator[str]:
    """One after another, for many keys at once: a draw of each character would take longer than all else of them."""
    fair = 256 // len(_PUBLIC_ALPHABET) * len(_PUBLIC_ALPHABET)
    letters = bytes(ord(_PUBLIC_ALPHABET[byte % len(_PUBLIC_ALPHABET)]) for byte in range(256))
    while True:
        drawn = secrets.token_bytes(4096).translate(letters, bytes(range(fair, 256))).decode()
        for start in range(0, len(drawn) - PUBLIC_LENGTH, PUBLIC_LENGTH):
            yield drawn[start : start + PUBLIC_LENGTH]


def public_id_of(key: bytes) -> str | None:
    """The public id of a well-formed key with a right checksum, else None. Says nothing of whether the key exists."""
    match = _KEY.fullmatch(key)
    return match[1].decode() if match is not None and _has_checksum(key) else None


def may_be_foreign(credential: bytes) -> bool:
    """It is none of our keys, and may be one that was imported."""
    return _FOREIGN.fullmatch(credential) is not None and public_id_of(credential) is None


def name_of_digest(shown: bytes) -> str:
    return _DIGEST_NAME + shown.hex()


def digest_of_name(name: str) -> bytes | None:
    """The digest, where a key is named by it and not by its public id."""
    return bytes.fromhex(name.removeprefix(_DIGEST_NAME)) if name.startswith(_DIGEST_NAME) else None


def looks_like_key(credential: bytes) -> bool:
    """Whether it begins like `gw_ab12cd34_`. Of what does not, nothing may be shown: it is somebody's secret."""
    return credential[2:12:9] == b"__" and credential[:2] == b"gw"


def looks_like_token(text: str) -> bool:
    """Whether it begins like `gwt_ab12cd34_`: then it may be a whole one, which is not shown again."""
    return text.startswith(TOKEN_PREFIX) and len(text) > len(TOKEN_PREFIX) + PUBLIC_LENGTH


def visible_id(credential: bytes) -> str:
    """What is public of a credential."""
    return credential[3:11].decode("latin-1") if looks_like_key(credential) else ""


def digest(key: bytes) -> bytes:
    """What is stored and compared: SHA-256 of the whole key, 32 bytes."""
    return hashlib.sha256(key).digest()


def _with_secret(name: str) -> str:
    body = f"{name}_" + "".join(secrets.choice(_BASE62) for _ in range(_SECRET_LENGTH))
    return body + _checksum(body.encode())


def _has_checksum(credential: bytes) -> bool:
    return _checksum(credential[:-_CHECKSUM_LENGTH]).encode() == credential[-_CHECKSUM_LENGTH:]


def _checksum(body: bytes) -> str:
    number, digits = zlib.crc32(body), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits
