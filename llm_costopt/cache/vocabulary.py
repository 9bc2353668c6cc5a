"""The words and patterns that the guards look for."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

VOWELS = r"\u0900-\u0963\u0966-\u0df3\u0e31-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ecd\u1000-\u1049\u1780-\u17d3"
"""Where the vowels of Indic scripts and the tones of Thai are, which are marks and no letters."""

UNSPACED = r"\u3040-\u30ff\u3400-\u9fff"
"""Signs of Chinese and Japanese, which write no spaces: each is taken for a word."""

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
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "dozen": "12",
    "hundred": "100",
    "thousand": "1000",
    "million": "1e6",
    "billion": "1e9",
    "trillion": "1e12",
}
NUMBER_WORDS |= {"half": "1/2", "double": "2x", "twice": "2x", "triple": "3x", "thrice": "3x"}
NUMBER_WORDS |= dict(
    zip(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
        " sixteenth seventeenth eighteenth nineteenth twentieth".split(),
        "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th 11th 12th 13th 14th 15th 16th 17th 18th 19th 20th".split(),
        strict=True,
    )
)

# Not i, v and x, which are words, names and letters too.
ROMANS = frozenset("ii iii iv vi vii viii ix xi xii xiii xiv xv xvi xvii xviii xix xx xxi xxii xxiii xxiv xxv".split())

LETTERS = frozenset("bcdefghjklmnopqrstuvwxyz")
"""Letters that stand alone for something, as in `plan B`; so does a capital A inside a sentence."""

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
    r"\w+n['’]t|dont|doesnt|didnt|cant|couldnt|wont|wouldnt|shouldnt|isnt|arent|wasnt|werent|havent|hasnt|hadnt|aint|mustnt|neednt|"
    r"w/o|lack|lacks|lacking|"
    # The commonest negations of German, French, Spanish, Italian, Portuguese, Dutch, the Nordic languages, Polish, Turkish and Russian.
    r"nicht|kein\w*|ohne|nie|pas|jamais|sans|sin|nunca|senza|mai|não|nao|sem|niet|geen|zonder|inte|utan|ikke|ikkje|uden|uten|ei|ilman|"
    r"bez|değil|yok|не|нет|нельзя|без|никогда)\b"
    # Of Chinese and Japanese, which write no spaces.
    r"|[不没沒]|ない|ません",
    re.IGNORECASE,
)

NEGATION_SIGNS = frozenset(
    "no not never none nobody nothing nowhere neither nor without cannot hardly except excluding non t dont doesnt didnt"
    " cant couldnt wont wouldnt shouldnt isnt arent wasnt werent havent hasnt hadnt aint mustnt neednt o lack lacks lacking"
    " nicht ohne nie pas jamais sans sin nunca senza mai nao sem niet geen zonder inte utan ikke ikkje uden uten ei ilman"
    " bez yok".split()
)
"""Words of which one is there whenever `NEGATION` matches in ASCII, but for `kein`: to look is cheaper than to match."""

_OPPOSITES = tuple(
    pair.split("/")
    for pair in (
        # Words that are opposites in one form only.
        "on/off in/out up/down to/from before/after above/below over/under and/or all/some all/any always/never for/against "
        "with/without more/less most/least more/fewer max/min maximum/minimum best/worst better/worse "
        "first/last next/last next/previous past/future bought/sold won/lost sent/received lent/borrowed given/taken gave/took inside/outside into/onto upstairs/downstairs upstream/downstream indoor/outdoor indoors/outdoors "
        "both/either everyone/nobody everything/nothing early/late earlier/later earliest/latest soon/late "
        "pros/cons able/unable men/women man/woman mom/dad mum/dad mother/father sister/brother son/daughter "
        "uncle/aunt niece/nephew wife/husband boy/girl king/queen male/female ascending/descending incoming/outgoing "
        "inbound/outbound online/offline prepaid/postpaid pretax/posttax frontend/backend "
        "north/south east/west northern/southern eastern/western horizontal/vertical "
    ).split()
)

_INFLECTED = tuple(
    pair.split("/")
    for pair in (
        # These and their regular forms.
        "high/low higher/lower highest/lowest big/small large/small long/short bigger/smaller larger/smaller longer/shorter "
        "biggest/smallest largest/smallest longest/shortest tall/short taller/shorter tallest/shortest hot/cold "
        "hotter/colder warmer/cooler hottest/coldest old/new young/old younger/older youngest/oldest newer/older "
        "newest/oldest cheap/expensive cheaper/pricier fast/slow faster/slower fastest/slowest quick/slow strong/weak "
        "stronger/weaker strongest/weakest easy/hard easy/difficult easier/harder easiest/hardest rich/poor richer/poorer "
        "richest/poorest wet/dry wetter/drier wettest/driest light/heavy light/dark lighter/heavier lighter/darker "
        "lightest/heaviest near/far nearer/farther nearest/farthest closer/farther closest/farthest thick/thin "
        "thicker/thinner wide/narrow wider/narrower deep/shallow deeper/shallower loud/quiet louder/quieter bright/dark "
        "clean/dirty full/empty soft/hard sweet/sour tight/loose smooth/rough raw/cooked fresh/stale alive/dead "
        "awake/asleep ancient/modern real/fake major/minor senior/junior odd/even "
        "positive/negative plus/minus true/false left/right top/bottom internal/external interior/exterior "
        "public/private legal/illegal possible/impossible safe/unsafe guilty/innocent manual/automatic analog/digital "
        "physical/virtual gross/net fixed/variable static/dynamic domestic/international local/remote "
        "inductive/deductive mutable/immutable synchronous/asynchronous symmetric/asymmetric bull/bear bullish/bearish "
        "open/close open/closed start/stop start/end start/finish begin/end begin/finish enable/disable enabled/disabled "
        "activate/deactivate allow/block allow/deny allow/forbid permit/forbid permit/prohibit approve/deny accept/reject "
        "accept/decline accept/refuse approve/reject grant/revoke increase/decrease increase/reduce "
        "increase/lower raise/lower raise/reduce rise/fall grow/shrink expand/collapse expand/shrink add/remove add/delete "
        "add/subtract multiply/divide create/delete create/destroy insert/delete insert/remove append/prepend "
        "delete/restore buy/sell lend/borrow send/receive deposit/withdraw credit/debit import/export "
        "upload/download upgrade/downgrade push/pull push/pop encrypt/decrypt encode/decode lock/unlock "
        "install/uninstall subscribe/unsubscribe connect/disconnect login/logout signin/signout win/lose gain/lose "
        "gain/loss profit/loss pass/fail success/failure winner/loser advantage/disadvantage benefit/risk "
        "arrive/depart arrival/departure enter/exit entrance/exit join/leave merge/split "
        "attach/detach hide/show pause/resume undo/redo freeze/thaw freeze/melt charge/drain "
        "charge/discharge fill/empty fill/drain include/exclude including/excluding "
        "hire/fire employ/dismiss employer/employee tenant/landlord plaintiff/defendant buyer/seller "
        "sender/receiver sender/recipient source/destination origin/destination parent/child adult/child "
        "client/server input/output read/write "
        "supply/demand income/expense income/expenditure asset/liability debtor/creditor debt/credit "
        "wholesale/retail prefix/suffix hardware/software majority/minority minority/majority love/hate "
        "birth/death born/died war/peace friend/enemy sink/float inhale/exhale "
        "reward/punish praise/criticize admit/discharge arrest/release sunrise/sunset summer/winter spring/autumn "
        "checking/savings king/queen groom/bride actor/actress grandmother/grandfather grandma/grandpa "
    ).split()
)


def _forms(word: str) -> frozenset[str]:
    stem = word.removesuffix("e")
    return frozenset({word, f"{word}s", f"{word}es", f"{stem}ed", f"{stem}ing"})


def _against(groups: Sequence[Sequence[str]], forms: Callable[[str], frozenset[str]]) -> dict[str, frozenset[str]]:
    against: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in groups:
        for here, there in ((one, other), (other, one)):
            for form in forms(here):
                against[form] |= forms(there) - {form}
    return {word: frozenset(others) for word, others in against.items()}


_FIXED, _BENT = _against(_OPPOSITES, lambda word: frozenset({word})), _against(_INFLECTED, _forms)

OPPOSITES = {
    word: _FIXED.get(word, frozenset()) | _BENT.get(word, frozenset()) for word in _FIXED.keys() | _BENT.keys()
}
OPPOSABLE = frozenset(OPPOSITES)

REVERSING = frozenset("un dis de in im il ir non anti mis".split())
"""What stands before a word and turns its meaning round, as in `mute` and `unmute`."""

FACING = tuple(
    pair.split("/")
    for pair in "hypo/hyper pre/post under/over in/ex im/ex up/down inter/intra pro/anti micro/macro".split()
)
"""What stands before the same word for opposite things, as in `hypotension` and `hypertension`."""

UNITS = {
    word: group.split()[0]
    for group in (
        "km kilometer kilometers kilometre kilometres/mi mile miles/meter meters metre metres/cm centimeter centimeters"
        " centimetre centimetres/mm millimeter millimeters millimetre millimetres/ft foot feet/inch inches/yard yards/"
        "kg kilo kilos kilogram kilograms/gram grams/lb lbs pound pounds/oz ounce ounces/liter liters litre litres/"
        "ml milliliter milliliters millilitre millilitres/gallon gallons/cup cups/tbsp tablespoon tablespoons/"
        "tsp teaspoon teaspoons/celsius centigrade/fahrenheit/kelvin/usd dollar dollars/eur euro euros/jpy yen/gbp/"
        "chf franc francs/inr rupee rupees/cny rmb yuan/mxn peso pesos/aud/cad/kb kilobyte kilobytes/mb megabyte megabytes/"
        "gb gigabyte gigabytes/tb terabyte terabytes/mph/kph kmh/watt watts/volt volts/acre acres/hectare hectares/"
        "mg milligram milligrams/mcg µg μg microgram micrograms/pint pints/quart quarts/nm nanometer nanometers nanometre"
        " nanometres/ms millisecond milliseconds/joule joules/calorie calories/kcal kilocalorie kilocalories/hz hertz/"
        "khz kilohertz/mhz megahertz/ghz gigahertz/kw kilowatt kilowatts/kwh/mw megawatt megawatts/ampere amperes amp amps/"
        "pascal pascals/psi/newton newtons/btc bitcoin bitcoins/eth ethereum/krw/sek krona kronor/nok/dkk krone kroner/"
        "pln zloty zlotys/brl reais/try lira liras/rub ruble rubles rouble roubles/thb baht/zar rand/sgd/hkd/nzd/cent cents/"
        "penny pence"
    ).split("/")
    for word in group.split()
}

BITS = frozenset("kb mb gb tb kbps mbps gbps tbps kbit mbit gbit tbit kbits mbits gbits tbits".split())
"""Words that mean bits or bytes, by their case."""

AFTER_NUMBERS = {
    word: group.split()[0]
    for group in (
        "s sec secs second seconds/min mins minute minutes/h hr hrs hour hours/day days/night nights/week weeks/month months/"
        "year years yr yrs/decade decades/century centuries/g/l/m/v/w/k/c/f"
    ).split("/")
    for word in group.split()
}
"""What is a unit only where a number stands before it."""

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

SUBJECTS = dict.fromkeys("i my me mine we us our".split(), "my") | dict.fromkeys("you your yours".split(), "your")

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

FRAMING = frozenset(
    "want need like wish love look looking help assist support tell show explain describe define definition mean meaning meant know"
    " understand learn wonder wondering find see say let try trying ask question way step process procedure method possible able allowed"
    " permitted option required exactly simply quick quickly easy easily simple best good right correct proper instruction guide tutorial"
    " info information detail tip thing example someone somebody something people person anyone everyone use used using problem issue"
    " trouble work make go going give provide come take put think sure maybe please kindly thanks again now name call called list happen"
    " supposed ok okay yes well also still basically currently one found".split()
)
"""Words that only say that something is asked, or how: another one of them makes no other question."""

_SMALL = (
    # What a line holds may stand for each other, `a fee for it`, `a fee on it`: prepositions and conjunctions,
    "of for in on at/of from by at on/about on of for/to into in/to with of/with by on in/with and but/as/or/than",
    # kinds of questions,
    "what which how/who whom/when if/where how/why",
    # tense and duty.
    "is are am do does has have will would shall should can could may might/was were did had has have/must should will do does have",
)

ALIKE = tuple(
    {
        word: frozenset(" ".join(line for line in lines.split("/") if word in line.split()).split())
        for word in lines.replace("/", " ").split()
    }
    for lines in _SMALL
)
"""Small words by their kind, each with those that may stand in its place."""

SMALL = frozenset().union(*ALIKE)

WHOLE = frozenset(
    "bar bas bath bid bit breath cap car cart cast cloth cod cop cub cut dim din dot fad far fat fin fir gag gap glob grad grim grip hat hid"
    " hop hug human kit lob mad man mar mat mil mod mop moral mut nap nod not pal pan par past pin pip plan plat plum pop prim prob"
    " quit rag rat rid rip rob rod rot sag sal scar scrap sever sham shin sin sir sit slat slid slim slop sol spar spin spit stag star strip"
    " tap them thin til tim tir ton trip tub tun twin urban van wad wag war win wir wok writ".split()
)
"""Words that are another one with an `e`: a `car` is no `care`, and `cars` are none."""
