"""What of a request leaves the process: a keyed hash, and text only where it was asked for."""

import json
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llm_costopt.types import Message

VARIABLE = "LLM_COSTOPT_HASH_KEY"
"""The environment variable that names the key, for instance of all machines of a fleet."""

Redact = Callable[[str], str]
"""Takes out of a text what must not be kept."""

_BYTES = 32

MOST_CHARACTERS = 4000
"""Of a text that is kept."""


def key_for(given: str | None, ledger: Path | None) -> bytes:
    """Return the key of the hashes: *given*, or the environment's, or the one beside the file *ledger*.

    One is drawn if there is none yet, and kept for its owner's eyes only; without a file it ends with the process.
    Whoever has the key can test whether a text was asked, so it is not in the ledger itself.

    Raises ValueError if the file beside the ledger holds something else.
    """
    if named := given or os.environ.get(VARIABLE):
        return blake2b(named.encode()).digest()
    if ledger is None:
        return secrets.token_bytes(_BYTES)
    path, key = ledger.with_name(f"{ledger.name}.key"), b""
    with suppress(ValueError):
        key = bytes.fromhex(_shared(path, secrets.token_hex(_BYTES)))
    if len(key) != _BYTES:
        raise ValueError(f"{str(path)!r} does not hold the ledger's key of hashes: delete it, and another one is drawn")
    return key


def hash_of(key: bytes, messages: Sequence[Message], *about: Any) -> str:
    """Hash a request, *about* being who is asked and how; equal for the very same request only.

    Ids that are minted for each call are left out. What JSON cannot hold counts by its text: an object that has only
    an address is like no other.
    """
    said = [[m.role, m.name, m.text, m.parts, [(c.name, c.args) for c in m.tool_calls], m.status] for m in messages]
    line = json.dumps([said, about], sort_keys=True, default=str)
    return blake2b(line.encode(), key=key, digest_size=16).hexdigest()


def kept(text: str, redact: Redact | None) -> str:
    """Take out of *text* what must not be kept, and cut the rest to a bounded length.

    Raises TypeError if *redact* gives no text.
    """
    left = text if redact is None else redact(text)
    if not isinstance(left, str):
        raise TypeError(f"redact gave {type(left).__name__}, no text")
    return left[:MOST_CHARACTERS]


def asked(messages: Sequence[Message]) -> str:
    """Return the last turn of the user; an empty text if there is none."""
    return next((m.text for m in reversed(messages) if m.role == "human"), "")


def _shared(path: Path, drawn: str) -> str:
    """Read the key that all processes share; keep *drawn* as it if there is none."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    # A file appears with its content, or not at all: another process may be looking for it just now.
    own = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        file.write(drawn)
    try:
        with suppress(FileExistsError):
            os.link(own, path)
    finally:
        own.unlink()
    return path.read_text(encoding="ascii")
