"""What each guard must refuse, and what it must let pass."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_costopt.cache import guards
from llm_costopt.cache.guards import CERTAIN, GUARDS, Candidate, Guard

REFUSE: dict[Guard, list[tuple[str, str]]] = {
    guards.numbers: [
        ("Boil the eggs for 3 minutes", "Boil the eggs for 5 minutes"),
        ("Rent a van with seven seats", "Rent a van with nine seats"),
        ("Is 20 % of it lost?", "Is 20 of it lost?"),
        ("A ticket for $40", "A ticket for €40"),
        ("Drill a hole of 2.5 mm", "Drill a hole of 25 mm"),
        ("Plant two rows", "Plant rows"),
        ("Add 1 and 1", "Add 1"),
        ("Who came first?", "Who came third?"),
        ("How many thousand stars?", "How many million stars?"),
        ("How many is a billion?", "How many is a million?"),
        ("Take .5 ml of it", "Take 5 ml of it"),
        ("Is -5 degrees cold?", "Is 5 degrees cold?"),
        ("Is \u22125 cold?", "Is 5 cold?"),
        ("A fee of ₹100", "A fee of ₩100"),
        ("Wake me at 5 am", "Wake me at 5 p.m."),
        ("Add ½ of it", "Add ¼ of it"),
        ("Open the fourth window", "Open the fifth window"),
        ("When was World War I?", "When was World War II?"),
        ("who won world war i", "who won world war ii"),
        ("Eggs for a dozen", "Eggs for a hundred"),
    ],
    guards.identifiers: [
        ("Track parcel ZX-81", "Track parcel ZX-82"),
        ("Write to kim@post.test", "Write to tim@post.test"),
        ("What is C++ good for?", "What is C good for?"),
        ("Open notes.txt", "Open notes.pdf"),
        ("Install v2.1rc", "Install v2.2rc"),
        ("Fly with B747", "Fly with B757"),
        ("Delete /tmp/old", "Delete /tmp/new"),
        ("Who posts under #sourdough?", "Who posts under sourdough?"),
        ("Call user_name", "Call user.name"),
        ("Follow plan b", "Follow plan a"),
        ("Take vitamin A", "Take vitamin D"),
        ("Learn C", "Learn R"),
    ],
    guards.dates: [
        ("Is the pool open on Monday?", "Is the pool open on Sunday?"),
        ("Frost in April", "Frost in October"),
        ("What is on tonight?", "What is on tomorrow?"),
        ("The latest bus", "The next bus"),
        ("Pay weekly", "Pay monthly"),
        ("How is the weather now?", "How is the weather?"),
        ("Rain in the morning", "Rain in the evening"),
        ("Rest for an hour", "Rest for a day"),
    ],
    guards.units: [
        ("How long do 5 km take on foot?", "How long do 5 miles take on foot?"),
        ("Weigh 3 kg of flour", "Weigh 3 lb of flour"),
        ("Bake at 180 °C", "Bake at 180 °F"),
        ("Ten dollars in change", "Ten euros in change"),
        ("How much is a litre?", "How much is a gallon?"),
        ("Take 5 mg of it", "Take 5 mcg of it"),
        ("Rest for 30 seconds", "Rest for 30 minutes"),
        ("Rest for two weeks", "Rest for two months"),
        ("A file of 5 Mb", "A file of 5 MB"),
    ],
    guards.language: [
        ("Say hello in French", "Say hello in Spanish"),
        ("Translate this to German", "Translate this"),
        ("Sort a list in Python", "Sort a list in Rust"),
    ],
    guards.code: [
        ("What does sort() return?", "What does sorted() return?"),
        ("Run it with --force", "Run it with --quiet"),
        ("Read userName from the form", "Read userMail from the form"),
        ("Explain a->b", "Explain a=>b"),
        ("Does it start with -v", "Does it start"),
        ("Run it with -R", "Run it with -F"),
        ("Match [a-z]", "Match [A-Z]"),
        ("Print a[0]", "Print a[1]"),
        ("Does a{2} match aa?", "Does a{2,} match aa?"),
    ],
    guards.names: [
        ("What is the capital of Spain?", "What is the capital of France?"),
        ("When did Ada Lovelace live?", "When did Alan Turing live?"),
    ],
    guards.negation: [
        ("Which birds can fly?", "Which birds can't fly?"),
        ("Paint that is toxic", "Paint that is not toxic"),
        ("Does it ever snow?", "Does it never snow?"),
        ("Soup with meat", "Soup without meat"),
        ("All but one are allowed", "None but one are allowed"),
        ("I don\u2019t like it", "I like it"),
        ("It isnt raining", "It is raining"),
        ("Darf man das?", "Darf man das nicht?"),
        ("Un gâteau avec œufs", "Un gâteau sans œufs"),
        ("Nobody is not welcome", "Nobody is welcome"),
        ("Tea w/o milk", "Tea and milk"),
        ("Foods lacking iron", "Foods containing iron"),
        ("Får man gå?", "Får man inte gå?"),
        ("Можно ли ждать?", "Можно ли не ждать?"),
        ("这个可以吃吗", "这个不可以吃吗"),
    ],
    guards.opposites: [
        ("How do I enable the alarm?", "How do I disable the alarm?"),
        ("Turn the heating on", "Turn the heating off"),
        ("The highest lake", "The lowest lake"),
        ("Import the list", "Export the list"),
        ("Is the gas safe?", "Is the gas unsafe?"),
        ("Buy a boat", "Sell a boat"),
        ("Roll up", "Roll down"),
        ("Walk to the lake", "Walk from the lake"),
        ("Undo the edit", "Redo the edit"),
        ("Mute the call", "Unmute the call"),
        ("Is zipping files slow?", "Is unzipping files slow?"),
        ("Why did they agree?", "Why did they disagree?"),
        ("What is hypotension?", "What is hypertension?"),
        ("Hiding a column", "Showing a column"),
        ("Sizes of paused videos", "Sizes of resumed videos"),
    ],
    guards.marks: [
        ("What does 👍 mean?", "What does 👎 mean?"),
        ("Which flag is 🇵🇪?", "Which flag is 🇳🇴?"),
        ("Who sends :)", "Who sends :("),
        ("Is x < y?", "Is x > y?"),
        ("What is & for?", "What is && for?"),
        ("A fee of 100€", "A fee of 100$"),
    ],
    guards.quotes: [
        ('Translate "sea"', 'Translate "lake"'),
        ("Translate “sea”", "Translate “Sea”"),
        ("Translate «mer»", "Translate mer"),
        ("Explain `ls`", "Explain `rm`"),
        ("Spell 'colour'", "Spell 'color'"),
        ('Say "yes" and "no"', 'Say "no" and "yes"'),
    ],
    guards.asks: [
        ("When was the bridge built?", "Where was the bridge built?"),
        ("Is the bridge closed?", "Why is the bridge closed?"),
        ("How many bees live here?", "How do bees live here?"),
        ("Can bees swim?", "Should bees swim?"),
        ("Did the shop close?", "Does the shop close?"),
        ("Will it rain?", "Does it rain?"),
        ("Bees sting", "Do bees sting"),
        ("How long is the river?", "How old is the river?"),
    ],
    guards.persons: [
        ("What is my name?", "What is your name?"),
        ("Who is his aunt?", "Who is her aunt?"),
        ("Where is our tent?", "Where is their tent?"),
        ("Is it mine?", "Is it yours?"),
        ("How old is he?", "How old is she?"),
        ("Feed my cat", "Feed the cat"),
    ],
    guards.whose: [
        ("What is my rent?", "What is his rent?"),
        ("Why is your tent torn?", "Why is her tent torn?"),
        ("Sell our tent to her", "Sell his tent to us"),
    ],
    guards.duties: [
        ("Should I feed the cat?", "May I feed the cat?"),
        ("Must bees swim?", "Should bees swim?"),
        ("Can I park here?", "Must I park here?"),
    ],
    guards.subjects: [
        ("Can you whistle?", "Can I whistle?"),
        ("How old are you?", "How old am I?"),
        ("How do you help me?", "How do I help you?"),
        ("Where do we meet?", "Where do you meet?"),
    ],
    guards.words: [
        ("The capital of Norway", "The capital of Sweden"),
        ("Bake bread", "Bake rye bread"),
        ("How do I clean a flute?", "How do I clean a violin?"),
        ("What does IT do?", "What does it do?"),
        ("Is a premium seat refundable?", "Is a basic seat refundable?"),
        ("Is a car dear?", "Is care dear?"),
        ("Draw two cubs", "Draw two cubes"),
        ("दिन क्या है", "दान क्या है"),
        ("เสื้อ คือ", "เสือ คือ"),
    ],
    guards.particles: [
        ("Can I sell it to a friend?", "Can I sell it for a friend?"),
        ("Talk about the vet", "Talk to the vet"),
        ("Protect it from fire", "Protect it with fire"),
        ("Say if the tea is hot", "Say where the tea is hot"),
        ("Must the bell ring?", "May the bell ring?"),
        ("Tell them where I park", "Tell them why I park"),
    ],
    guards.routes: [
        ("Ship it from Oslo to Turin", "Ship it to Oslo from Turin"),
        ("Find me ferries from my town to Kiel", "How do I get from Kiel to the town?"),
        ("Move it from savings to checking", "From checking to my savings, move it"),
    ],
    guards.swapped: [
        ("Ship it from Oslo to Turin", "Ship it from Turin to Oslo"),
        ("Do wolves fear sheep?", "Do sheep fear wolves?"),
        ("Turn the old lamp into a new vase", "Turn the new vase into an old jar lamp"),
    ],
    guards.order: [
        ("Trains Bergen Oslo", "Trains Oslo Bergen"),
        ("Did the dog bite the man?", "Did the man bite the dog?"),
        ("Convert miles into kilometres", "Convert kilometres into miles"),
        ("Is tea stronger than coffee?", "Is coffee stronger than tea?"),
    ],
}

PASS: dict[Guard, list[tuple[str, str]]] = {
    guards.numbers: [
        ("Bake for 3 hours", "Bake for three hours"),
        ("A loan of 1,000", "A loan of 1000"),
        ("Which one is it?", "Which is it?"),
        ("Save 20 %", "Save 20%"),
        ("Between 5 and 9", "Between 9 and 5"),
        ("Add salt", "Add some salt"),
        ("Wake me at 5 am", "Wake me at 5am"),
        ("Wake me at 5 p.m.", "Wake me at 5 pm."),
        ("Eggs for a dozen", "Eggs for 12"),
        ("Is the 5-litre pot full?", "Is the 5 litre pot full?"),
        ("AM I IN LEVEL VI", "am I in level vi"),
    ],
    guards.identifiers: [
        ("Track parcel ZX-81.", "Please track parcel (ZX-81)"),
        ("Write to kim@post.test, please", "Write to kim@post.test"),
        ("What is well-known?", "What is well known?"),
        ("Why? Because.", "Why! Because,"),
        ("I'd say it's a cat's", "A cat's, I say"),
        ("r u there", "are you there"),
        ("Take a walk. A short one", "take a walk, a short one"),
    ],
    guards.dates: [
        ("Is it open on Mondays?", "Is it open on monday?"),
        ("Days in a week", "Week in days"),
        ("Plant peas", "Sow peas"),
    ],
    guards.units: [
        ("Walk 5 kilometres", "Walk 5 km"),
        ("A cup of tea", "Two cups of tea"),
        ("Bake at 180 °C", "Bake at 180°c"),
        ("Rest for 3 hrs", "Rest for three hours"),
        ("A second look at the day", "A look at it"),
    ],
    guards.language: [
        ("Say hello in French", "How do I say hello in french?"),
        ("A word in a language", "Another word in a language"),
    ],
    guards.code: [
        ("What does sort() return?", "Tell me what sort() returns"),
        ("A well-known (and old) shop: where?", "A known, old shop"),
    ],
    guards.names: [
        ("What is the capital of Spain?", "what is the capital of spain?"),
        ("Where is the Seine in Paris?", "Where in Paris is it?"),
        ("Where do I find Peru?", "Where in the world do I find it?"),
        ("I think I may go. Perhaps", "You think so. Never"),
        ("WHERE IS SPAIN", "where is Peru"),
    ],
    guards.negation: [
        ("I can't swim", "I cannot swim"),
        ("Isn\u2019t it late?", "Is it not late?"),
        ("A knot in a note", "A note in a knot"),
        ("Ça marche où ?", "Où ça marche ?"),
    ],
    guards.opposites: [
        ("Turn it on or off", "Turn it off or on"),
        ("Open and close the lid", "Open the lid"),
        ("How high is it?", "How tall is it?"),
        ("Muting a call", "Mute the calls"),
        ("A unit of time", "It is of time"),
    ],
    guards.marks: [
        ("Feed the cat 🙏", "Feed the cat"),
        ("What does ❤️ mean?", "What does ❤ mean?"),
        ("Tea (green), please?!", "Tea: green… please"),
        ("हिन्दी में बोलो", "हिन्दी में लिखो"),
    ],
    guards.quotes: [
        ('Translate "sea"', "Translate “sea”"),
        ("Don't panic, it's fine", "Dont panic, its fine"),
        ("The dogs' owner's car", "The owner of the dogs and a car"),
    ],
    guards.asks: [
        ("Which tea is green?", "What tea is green?"),
        ("Could you tell me where Oslo is?", "Where is Oslo?"),
        ("Can bees swim?", "Could bees swim?"),
        ("Whom did they call?", "Who did they call?"),
        ("Please feed the cat", "Feed the cat"),
    ],
    guards.persons: [
        ("How do I fix my bike?", "How do you fix your bike?"),
        ("How to fix a bike?", "How do I fix my bike?"),
        ("Where is our tent?", "Where is my tent?"),
        ("Can you whistle?", "Can I whistle?"),
    ],
    guards.whose: [
        ("What is my rent?", "What is the rent?"),
        ("Where are my keys? I lost them", "Where did I leave my keys?"),
        ("How do I fix my bike?", "How do you fix your bike?"),
    ],
    guards.duties: [
        ("Must I pay?", "Do I have to pay?"),
        ("Can I park here?", "May I park here?"),
        ("How should I bake bread?", "How can I bake bread?"),
    ],
    guards.subjects: [
        ("How do I fix a bike?", "How do you fix a bike?"),
        ("Where do I park?", "Where is the park?"),
        ("Can we park here? My car is small", "Can I park here?"),
        ("Could you tell me if I may park here?", "May I park here?"),
    ],
    guards.words: [
        ("How do I clean a flute?", "how can I clean the flutes"),
        ("Hello, what is a comet?", "What are comets?"),
        ("Baking bread", "Bake bread"),
        ("IS IT LATE", "is it late"),
        ("Park the cars", "Park a car"),
        ("Caring for rates", "Care for the rate"),
        ("दिन क्या है", "दिन क्या है।"),
        ("怎么用 Python", "用python怎么"),
    ],
    guards.particles: [
        ("Symptoms of a cold", "Symptoms for a cold"),
        ("How do I log in to it?", "How can I log into it?"),
        ("Could you show me if it fits?", "Can it fit?"),
        ("What if it rains?", "What when it rains?"),
        ("Write it in ink and water", "Write it with ink and water"),
        ("Which way is it to the lake?", "What is the way to the lake?"),
    ],
    guards.routes: [
        ("Ship it from Oslo to Turin", "Ship it to Turin from Oslo"),
        ("Ship it from my shop to my home", "Ship it to my home from my shop"),
        ("A letter from home to home", "From home to home, a letter"),
    ],
    guards.swapped: [
        ("Ship it from Oslo to Turin", "Please ship this from Oslo to Turin"),
        ("Feed the cat before the long flight", "Before a long flight the hungry grey cat wants food"),
    ],
    guards.order: [
        ("What is the capital of Peru?", "So, the capital of Peru: what is it?"),
        ("Bake rye bread", "Bake the bread"),
        ("Tea and toast", "Coffee and cake"),
    ],
}

CASES_REFUSED = [(guard, *pair) for guard, pairs in REFUSE.items() for pair in pairs]
CASES_PASSED = [(guard, *pair) for guard, pairs in PASS.items() for pair in pairs]

SENTENCES = st.lists(
    st.sampled_from(
        [
            *"Who is not my 3 on off A-1 'x' \" km French Paris f() --x °C °F today from To the cat cats' IT when did won't ? you -3 .5 pm plan b VI 👍 && mute unmute 2 h your his her they".split(),
            "é",
            "\n",
        ]
    ),
    max_size=8,
).map(" ".join)


def pair(asked: str, stored: str) -> Candidate:
    """Make a candidate of two questions."""
    return Candidate(asked=asked, stored=stored, similarity=0.99)


@pytest.mark.parametrize(("guard", "asked", "stored"), CASES_REFUSED)
def test_a_guard_refuses(guard: Guard, asked: str, stored: str) -> None:
    """A difference of the guard's kind is refused, whichever side it stands on, with one name for the reason."""
    reason = "question" if guard is guards.asks else guard.__name__

    assert guard(pair(asked, stored)) == reason
    assert guard(pair(stored, asked)) == reason


@pytest.mark.parametrize(("guard", "asked", "stored"), CASES_PASSED)
def test_a_guard_lets_pass(guard: Guard, asked: str, stored: str) -> None:
    """What is the same to the guard passes, whichever side it stands on."""
    assert guard(pair(asked, stored)) is None
    assert guard(pair(stored, asked)) is None


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("How do I water a cactus?", "how do i water a cactus"),
        ("Please tell me how I water a cactus", "How do I water a cactus?"),
        ("What is the boiling point of lead?", "what's the boiling point of lead?"),
        ("How can I freeze my library card?", "How do you freeze your library card?"),
        ("Which planets have rings?", "What planets have rings?"),
    ],
)
def test_paraphrases_pass_all_guards(asked: str, stored: str) -> None:
    """The guards together leave something to hit."""
    assert guards.refusal(pair(asked, stored), GUARDS) is None


@given(SENTENCES, SENTENCES)
@settings(deadline=None)
def test_guards_are_fair(one: str, other: str) -> None:
    """No guard minds which of two questions came first, or refuses a question for itself."""
    assert [g(pair(one, other)) for g in (*GUARDS, *CERTAIN)] == [g(pair(other, one)) for g in (*GUARDS, *CERTAIN)]
    assert guards.refusal(pair(one, one), GUARDS) is None


@given(SENTENCES, SENTENCES)
@settings(deadline=None)
def test_what_is_certain_is_refused_by_all_guards_too(one: str, other: str) -> None:
    """Whoever hears all guards need not hear the certain ones first."""
    if guards.refusal(pair(one, other), CERTAIN):
        assert guards.refusal(pair(one, other), GUARDS)


def test_the_first_reason_is_the_one_that_is_named() -> None:
    """With several differences, the first guard in the list speaks."""
    differ = pair("Is 3 on?", "Is 4 off?")

    assert guards.refusal(differ, (guards.opposites, guards.numbers)) == "opposites"
    assert guards.refusal(differ, (guards.numbers, guards.opposites)) == "numbers"
    assert guards.refusal(differ, ()) is None


def test_every_guard_is_on_by_default_and_tested_here() -> None:
    """A new guard needs pairs above."""
    assert {*GUARDS, *CERTAIN} == set(REFUSE) == set(PASS)
