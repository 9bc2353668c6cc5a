"""Where Redis is, by its URL, and for how long to wait for it."""

from urllib.parse import urlsplit

from llm_costopt.errors import MissingExtraError

try:
    from redis import ConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.connection import parse_url
    from redis.retry import Retry
except ModuleNotFoundError as missing:
    raise MissingExtraError("SemanticCache(url=…)", "redis") from missing


def client(url: str, seconds: float) -> Redis:
    """Make a client that connects when it is first used, and waits *seconds* at most for each reply, without retries.

    Raises:
        ValueError: *url* is malformed. The message quotes nothing of it, since it may hold a password.
    """
    problem = _problem(url)
    if problem is None:
        try:
            options = parse_url(url)
            # After what the URL says: a limit that it sets would hold up the application.
            pool = ConnectionPool(
                **options
                | {
                    "socket_connect_timeout": seconds,
                    "socket_timeout": seconds,
                    "retry": Retry(NoBackoff(), 0),
                    "protocol": 2,
                    "decode_responses": False,
                }
            )
            pool.connection_class(**pool.connection_kwargs)  # does not connect, and knows which options there are
        except (TypeError, ValueError):
            problem = "an option that Redis clients do not have, or a value that is none of its own"
        else:
            return Redis(connection_pool=pool)
    raise ValueError(
        "url is where Redis is, such as redis://localhost:6379/0 or rediss://user:password@host:6379/0, with what is "
        f"special in the password escaped (%40 for @, %2F for /); got one with {problem}"
    ) from None


def _problem(url: object) -> str | None:
    if not isinstance(url, str):
        return "a type that is no text"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "a host or port that is none"
    database = parts.path.strip("/")
    if parts.scheme not in {"redis", "rediss", "unix"}:
        return "another scheme"
    if parts.scheme == "unix":
        return None if database else "no path"
    if not parts.hostname:
        return "no host"
    return None if not database or database.isdecimal() else "a database that is no number"
