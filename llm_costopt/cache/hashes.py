"""An entry as the fields of a Redis hash, and back; nothing that comes back is trusted."""

import hashlib
import json
import math
from collections.abc import Sequence

from llm_costopt.cache.reading import sketch
from llm_costopt.cache.store import Entry
from llm_costopt.cache.verify import Neighbour

FIELDS = ("exact", "scope", "text", "stored", "answer", "says", "tags", "stored_at", "expires_at", "model")
"""What `entry` reads, in this order. Redis clients stumble over fields named `id` or `payload`."""

NEAR_FIELDS = ("scope", "text", "says", "expires_at")
"""What `neighbour` reads beside the distance."""


def digest(*parts: str) -> str:
    """Make hex digits of any texts, which need no escape in a key, a pattern or a query."""
    line = json.dumps(parts)  # keeps the borders between parts, and makes ASCII of a lone surrogate
    return hashlib.blake2b(line.encode(), digest_size=16).hexdigest()


def fields(entry: Entry) -> dict[str, bytes | int | str]:
    """Write *entry* as fields; `tag` and `asked` are what it may be selected by."""
    written: dict[str, bytes | int | str] = {
        "exact": _bytes(entry.exact),
        "scope": _bytes(entry.scope),
        "text": _bytes(entry.text),
        "stored": _bytes(entry.payload),
        "answer": _bytes(entry.answer),
        "says": entry.says,
        "tags": json.dumps(entry.tags),
        "stored_at": repr(entry.stored_at),
        "expires_at": "inf" if entry.expires_at is None else repr(entry.expires_at),
    }
    if entry.tags:
        written["tag"] = ",".join(map(digest, entry.tags))
    if entry.model is not None:
        written |= {"model": _bytes(entry.model), "asked": digest(entry.model)}
    return written


def entry(exact: str, values: Sequence[bytes | None]) -> Entry | None:
    """Read the *values* of `FIELDS` at the key of *exact*; None unless they are a whole entry, and that one's."""
    *needed, model = values
    try:
        name, scope, text, payload, answer, says, tags, stored_at, expires_at = (v for v in needed if v is not None)
        found = Entry(
            id=exact,
            exact=_text(name),
            scope=_text(scope),
            text=_text(text),
            payload=_text(payload),
            answer=_text(answer),
            says=int(says),
            model=None if model is None else _text(model),
            tags=_texts(tags),
            stored_at=_time(stored_at),
            expires_at=None if expires_at == b"inf" else _time(expires_at),
            used_at=_time(stored_at),  # Redis notes itself what was used
        )
    except (ValueError, RecursionError):
        return None
    return found if found.exact == exact else None


def neighbour(exact: str, scope: str, since: float, values: Sequence[bytes | None]) -> Neighbour | None:
    """Read a distance and the values of `NEAR_FIELDS`; None unless it is an entry of *scope* not expired at *since*."""
    try:
        distance, of, text, says, expires_at = (value for value in values if value is not None)
        similarity = 1 - float(distance)
        if _text(of) != scope or not math.isfinite(similarity) or not float(expires_at) > since:
            return None
        asked = _text(text)
        return Neighbour(exact, similarity, asked, int(says), *sketch(asked))
    except ValueError:  # a value is missing (deleted by Redis since it was found) or is not what we wrote
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")


def _texts(value: bytes) -> tuple[str, ...]:
    texts = json.loads(value)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("no list of texts")
    return tuple(texts)


def _time(value: bytes) -> float:
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError("no time")
    return seconds
