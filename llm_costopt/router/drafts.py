"""Where drafts do not pay: a route on which so many are escalated that asking the strong tier at once costs less."""

import hashlib
import json
import math
import threading
from dataclasses import dataclass

from llm_costopt.recent import Recent
from llm_costopt.router.calibrate import cascade_pays
from llm_costopt.types import Question

FEWEST = 30
"""Drafts on a route before it is judged."""
MEMORY = 200
"""Drafts that count; what was before them is halved, so that a route can change."""
PROBE = 20
"""Every so many requests a route that is off drafts again, so that it can come on."""
Z = 1.28
"""A route goes off when drafts lose money with 90 % confidence."""


@dataclass(slots=True)
class _Route:
    drafts: float = 0.0
    escalated: float = 0.0
    left_off: int = 0


class Drafts:
    """Count what becomes of drafts on each route, by any number of threads; the 1,024 routes used last are remembered."""

    def __init__(self) -> None:
        self._routes: Recent[str, _Route] = Recent()
        self._lock = threading.Lock()

    def pay(self, route: str, ratio: float | None) -> bool:
        """Tell whether to draft on *route*, where a draft costs *ratio* of a strong answer; yes while that is unknown."""
        with self._lock:
            known = self._routes.get(route)
            if ratio is None or known is None or known.drafts < FEWEST:
                return True
            if cascade_pays(ratio, 1.0, _at_least(known.escalated, known.drafts)):
                known.left_off = 0
                return True
            known.left_off += 1
            return known.left_off % PROBE == 0

    def noted(self, route: str, *, escalated: bool) -> None:
        """Count a draft."""
        with self._lock:
            known = self._routes.get(route) or _Route()
            known.drafts += 1
            known.escalated += escalated
            if known.drafts > MEMORY:
                known.drafts, known.escalated = known.drafts / 2, known.escalated / 2
            self._routes.put(route, known)


def route_of(question: Question) -> str:
    """Name the route of a request: what its application asks for each time, which is the system prompt, tools and structure."""
    fixed = [m.text for m in question.messages if m.role == "system"]
    said = json.dumps([fixed, sorted(question.tools), question.with_tools, question.with_schema])
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _at_least(part: float, whole: float) -> float:
    """Return the lower end of Wilson's interval of a share."""
    share = part / whole
    centre = share + Z * Z / (2 * whole)
    return (centre - Z * math.sqrt(share * (1 - share) / whole + Z * Z / (4 * whole * whole))) / (1 + Z * Z / whole)
