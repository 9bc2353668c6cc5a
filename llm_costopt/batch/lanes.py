"""Who pays for a request, without keeping the key."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

_NOT_OURS = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host",
        "idempotency-key", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that speak of one request and not of the account."""


def account(headers: Mapping[str, str], names: Sequence[str]) -> str:
    """Hash the headers *names*: enough to tell accounts apart, and no way back to the key."""
    told = "\n".join(f"{name}: {headers.get(name, '')}" for name in names)
    return blake2b(told.encode(), digest_size=8, person=b"llm-costopt").hexdigest()


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Pick the headers that the calls for a batch need as well: key, organisation, version, those of a gateway."""
    return {n: v for n, v in headers.items() if n not in _NOT_OURS and not n.startswith("x-stainless")}
