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
DATE_SIGNS = DATES | {f"{word}s" for word in DATES}

NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|hardly|except|excluding|non|"
    r"\w+n['’]t|dont|doesnt|didnt|cant|couldnt|wont|wouldnt|shouldnt|isnt|arent|wasnt|werent|havent|hasnt|hadnt|"
    # The commonest negations of German, French, Spanish, Italian, Portuguese and Dutch.
    r"nicht|kein\w*|ohne|nie|pas|jamais|sans|sin|nunca|senza|mai|não|nao|sem|niet|geen|zonder)\b",
    re.IGNORECASE,
)

NEGATION_SIGNS = frozenset(
    "no not never none nobody nothing nowhere neither nor without cannot hardly except excluding non t dont doesnt didnt"
    " cant couldnt wont wouldnt shouldnt isnt arent wasnt werent havent hasnt hadnt nicht ohne nie pas jamais sans sin"
    " nunca senza mai não nao sem niet geen zonder".split()
)
"""Words of which one is there whenever `NEGATION` matches, but for `kein`: to look is cheaper than to match."""

_OPPOSITES = tuple(
    pair.split("/")
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

OPPOSABLE = frozenset(word for pair in _OPPOSITES for word in pair)
OPPOSITES = {
    word: frozenset(other for pair in _OPPOSITES if word in pair for other in pair if other != word)
    for word in OPPOSABLE
}

UNITS = {
    word: group.split()[0]
    for group in (
        "km kilometer kilometers kilometre kilometres/mi mile miles/meter meters metre metres/cm centimeter centimeters"
        " centimetre centimetres/mm millimeter millimeters millimetre millimetres/ft foot feet/inch inches/yard yards/"
        "kg kilo kilos kilogram kilograms/gram grams/lb lbs pound pounds/oz ounce ounces/liter liters litre litres/"
        "ml milliliter milliliters millilitre millilitres/gallon gallons/cup cups/tbsp tablespoon tablespoons/"
        "tsp teaspoon teaspoons/celsius centigrade/fahrenheit/kelvin/usd dollar dollars/eur euro euros/jpy yen/gbp/"
        "chf franc francs/inr rupee rupees/cny rmb yuan/mxn peso pesos/aud/cad/kb kilobyte kilobytes/mb megabyte megabytes/"
        "gb gigabyte gigabytes/tb terabyte terabytes/mph/kph kmh/watt watts/volt volts/acre acres/hectare hectares"
    ).split("/")
    for word in group.split()
}

LANGUAGES = frozenset(
    "english french spanish german italian portuguese dutch russian chinese mandarin cantonese japanese korean arabic hindi"
    " urdu bengali tamil turkish polish swedish norwegian danish finnish greek hebrew latin czech hungarian romanian"
    " ukrainian vietnamese thai indonesian malay persian farsi swahili welsh irish gaelic catalan croatian serbian bulgarian"
    " slovak slovenian icelandic estonian latvian lithuanian tagalog zulu python javascript typescript java rust golang ruby"
    " php kotlin swift haskell scala perl sql html css bash powershell".split()
)
"""Languages that people and machines are addressed in."""

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|`([^`]+)`|(?<!\w)['‘]([^'’]+)['’](?!\w)")

QUOTE_SIGNS = re.compile(r"[\"“«`'‘]")

WH = frozenset("who whom whose what which when where why how".split())
MEASURES = frozenset("many much long often far old big fast".split())
SAME_WH = {"whom": "who", "which": "what"}
AUXILIARY = frozenset(
    "is are was were am do does did has have had can could will would shall should may might must isn aren don doesn didn"
    " couldn won wouldn shouldn".split()
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
PAST = frozenset("was were did had didn wasn weren".split())
FUTURE = frozenset("will shall won".split())
FUTURE_SIGNS = FUTURE | {"going"}

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
POLITE_SIGNS = frozenset("please pls thanks thank hi hello hey me know".split())
"""Words of which one is there whenever `POLITE` matches."""

# Words that carry no meaning of their own here: what some of them do carry (person, tense,
# question, direction, negation) has a guard of its own.
EMPTY = frozenset(
    "a an the is are was were be been being am do does did done doing have has had having i me my mine we us our you your"
    " it its of in on at to for from by with about into as and or but so if then than can could will would shall should may"
    " might must just really actually some any what which who whom whose when where why how that these those there here s m t"
    " d ll ve re get got".split()
)
