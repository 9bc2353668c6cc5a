"""Questions without end for the benchmarks: the stored ones, the same in other words, and some on another subject."""

_VERBS = (
    "cancel renew upgrade downgrade export import rename archive share duplicate translate print encrypt restore "
    "publish approve reject schedule forward merge split filter sort label review sign assign track pause mute "
    "download inspect"
).split()
_KINDS = (
    "monthly yearly shared private blank draft final signed scanned urgent internal external legal medical annual "
    "weekly daily broken colored handwritten printed translated corrected official personal academic financial "
    "technical temporary permanent regional confidential"
).split()
_THINGS = (
    "invoice contract report recipe ticket letter passport photograph spreadsheet calendar playlist budget receipt "
    "diploma voucher certificate newsletter questionnaire manual blueprint portfolio prescription itinerary "
    "reservation warranty payroll subscription mortgage lawsuit poem brochure timetable"
).split()
_PLACES = (
    "Berlin Lisbon Nairobi Toronto Osaka Lima Helsinki Cairo Mumbai Boston Seoul Madrid Oslo Jakarta Dublin Prague "
    "Santiago Warsaw Athens Vienna Hanoi Zagreb Denver Havana Tunis Manila Ankara Geneva Bogota Sydney Kyoto Riga"
).split()
_LISTS = (_VERBS, _KINDS, _THINGS, _PLACES)

ALL = 32**4
"""How many stored questions there are."""


def stored(n: int) -> str:
    """Return the stored question number *n*, below `ALL`."""
    return "How do I {} the {} {} in {}?".format(*_words(n))


def reworded(n: int) -> str:
    """Ask the same as `stored(n)` with another letter case and another function word."""
    return "how can I {} the {} {} in {}".format(*_words(n)).lower()


def elsewhere(n: int) -> str:
    """Ask something that no stored question is near to."""
    _, kind, _, place = _words(n)
    return f"Which {kind} glacier near {place} fed ancient volcanic rivers before dinosaurs went extinct {n}?"


def _words(n: int) -> list[str]:
    # A large odd factor: neighbours in number should not be neighbours in meaning.
    left, words = n * 387_420_489 % ALL, []
    for choices in _LISTS:
        left, choice = divmod(left, 32)
        words.append(choices[choice])
    return words
