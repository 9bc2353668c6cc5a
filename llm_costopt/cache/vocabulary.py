"""The words and patterns that the guards look for."""

import re

NUMBER_WORDS = {
    word: str(n)
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen eighteen nineteen twenty".split()
    )
} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "hundred": "100",
    "thousand": "1000",
    "million": "1e6",
}
NUMBER_WORDS |= {"first": "1st", "second": "2nd", "third": "3rd", "half": "1/2", "double": "2x", "twice": "2x"}

DATES = frozenset(
    "january february march april may june july august september october november december"
    " jan feb mar apr jun jul aug sep sept oct nov dec"
    " monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs fri sat sun"
    " today tomorrow yesterday tonight now current currently latest last next this previous past upcoming recent"
    " morning afternoon evening night noon midnight daily weekly monthly quarterly yearly annual"
    " second minute hour day week month quarter year decade century weekend".split()
)

NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|hardly|except|excluding|non|"
    r"\w+n['’]t|dont|doesnt|didnt|cant|couldnt|wont|wouldnt|shouldnt|isnt|arent|wasnt|werent|havent|hasnt|hadnt|"
    # The commonest negations of German, French, Spanish, Italian, Portuguese and Dutch.
    r"nicht|kein\w*|ohne|nie|pas|jamais|sans|sin|nunca|senza|mai|não|nao|sem|niet|geen|zonder)\b",
    re.IGNORECASE,
)

OPPOSITES = tuple(
    tuple(pair.split("/"))
    for pair in (
        "on/off in/out up/down to/from before/after above/below over/under and/or all/some all/any always/never for/against "
        "with/without more/less most/least more/fewer max/min maximum/minimum best/worst better/worse first/last "
        "high/low higher/lower highest/lowest big/small large/small long/short hot/cold old/new open/close open/closed "
        "start/stop start/end begin/end enable/disable enabled/disabled activate/deactivate allow/block allow/deny "
        "accept/reject accept/decline approve/reject increase/decrease raise/lower add/remove add/delete create/delete "
        "buy/sell lend/borrow send/receive deposit/withdraw credit/debit import/export upload/download push/pull "
        "encrypt/decrypt encode/decode lock/unlock install/uninstall subscribe/unsubscribe connect/disconnect "
        "login/logout win/lose pass/fail success/failure successes/failures advantage/disadvantage "
        "advantages/disadvantages pros/cons benefit/risk benefits/risks true/false left/right internal/external public/private "
        "legal/illegal possible/impossible safe/unsafe able/unable male/female men/women man/woman husband/wife "
        "boy/girl mother/father sister/brother king/queen incoming/outgoing inbound/outbound ascending/descending "
        "read/write client/server input/output gross/net fixed/variable domestic/international arrive/depart arrival/departure "
    ).split()
)

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|`([^`]+)`|(?<!\w)['‘]([^'’]+)['’](?!\w)")

WH = re.compile(r"\b(how (?:many|much|long|often|far|old|big|fast)|who|whom|whose|what|which|when|where|why|how)\b")
SAME_WH = {"whom": "who", "which": "what"}
AUXILIARY = re.compile(
    r"^(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must|isn|aren|don|doesn|"
    r"didn|can|couldn|won|wouldn|shouldn)\b"
)
MODALS = {
    "can": "can",
    "could": "can",
    "should": "should",
    "must": "must",
    "will": "will",
    "would": "will",
    "may": "may",
}
PAST = re.compile(r"\b(?:was|were|did|had|didn|wasn|weren)\b")
FUTURE = re.compile(r"\b(?:will|shall|won|going to)\b")

PERSONS = {
    **dict.fromkeys("my mine our ours me us".split(), "my"),
    **dict.fromkeys("your yours".split(), "your"),
    **dict.fromkeys("he him his".split(), "his"),
    **dict.fromkeys("she her hers".split(), "her"),
    **dict.fromkeys("they them their theirs".split(), "their"),
}

POLITE = re.compile(
    r"\b(?:please|pls|thanks(?: a lot| in advance)?|thank you|hi|hello|hey|(?:can|could|would|will) you (?:please )?(?:tell|show|explain to|give)"
    r" me|i(?:['’]d| would)? (?:like|want|need) to know|do you know|let me know|tell me)\b",
    re.IGNORECASE,
)

# Words that carry no meaning of their own here: what some of them do carry (person, tense,
# question, direction, negation) has a guard of its own.
EMPTY = frozenset(
    "a an the is are was were be been being am do does did done doing have has had having i me my mine we us our you your"
    " it its of in on at to for from by with about into as and or but so if then than can could will would shall should may"
    " might must just really actually some any what which who whom whose when where why how that these those there here s m t"
    " d ll ve re get got".split()
)
