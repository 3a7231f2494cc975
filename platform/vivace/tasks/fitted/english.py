"""Plain English without end: sentences of essays, names of things, numbers, and people with what is known of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator


def split(words: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(words.split())


ADJECTIVES = split(
    """
    amber ancient bitter bold brass brave bright brittle broad bronze calm careful cedar clever coarse copper coral
    crimson curious dusty eager early earnest elegant faded fancy fierce flat fragile frosty gentle gilded glassy
    gloomy golden graceful grand granite hasty heavy hollow humble hungry icy idle ivory jolly keen lively lonely lost
    loud lucky marble mellow merry misty modest narrow nimble noble northern oaken odd opal orderly pale patient
    pearl plain polished proud quaint quiet rapid rare restless rough royal ruby rusty sable scarlet secret shallow
    sharp shiny silent silver simple sleepy slender smooth solemn southern speckled spotted stately steady steep
    sturdy sudden sunny swift tall tender thin thorny timid velvet violet vivid wandering warm weary western wild
    wise wooden woven young
    """
)
NOUNS = split(
    """
    acorn anchor anvil apron arrow balcony barrel basket beacon bell bench blanket boat bottle bridge brush bucket
    button cabin candle canyon carpet cart castle chain chest chimney cloak clock compass cottage cradle crown cup
    curtain desk drum engine envelope falcon feather fence fiddle flag flute forge fountain gate glove goblet hammer
    harbor harp hatchet helmet hinge jacket jar kettle key kite ladder lamp lantern ledger locket loom magnet mantle
    map mask medal mill mirror needle oven paddle parcel pebble pencil pendant pillow pipe pitcher plough pocket
    puppet quilt raft ribbon ring rope saddle sail scarf scroll shield shovel sickle sled spade spoon stool sword
    table tent thimble torch tower trumpet tunnel turret umbrella vase violin wagon wallet well wheel whistle window
    """
)
COMMON = split(
    """
    air animal answer apple area arm autumn baby bag ball bank bath bean bed bird blood board body bone book border
    box boy brain branch bread breakfast breath brother butter cake camp car card cat cause chair chance child church
    circle city class cloud coast coat coffee color corn corner cotton country cow cream crowd dance date day deal
    debt dinner direction doctor dog door dream dress drink dust ear earth egg evening event eye face fact family
    farm father field finger fire fish flame floor flower food foot forest fork friend fruit garden girl glass goat
    gold grain grass group hair hand hat head heart hill history hole holiday home honey horse hospital hour house
    idea ink insect iron island job joke journey judge juice kitchen knee knife lake lamb land language leaf leather
    leg letter level library light line lip list lunch machine market meal meat metal milk mind minute money month
    moon morning mother mountain mouth music nail name neck nest night noise nose number ocean office oil orange
    page paint pair paper parent park part path peace pen person picture piece pig place plan plant plate pleasure
    poem point pool potato power price prize problem rain reason rice river road rock roof room root salt sand school
    science sea season seat seed sheep ship shirt shoe shop shoulder side sign silk sister skin sky sleep smile snow
    soap song sound soup space square stamp star station steam step stick stone store storm story street sugar summer
    sun tail taste teacher thread ticket time tongue tooth town toy trade train tree trip trouble value village voice
    wall war water wave weather week weight wind wine wing winter woman wood word work world writer yard year
    """
)
"""Single words of every day, for lists."""

FIRST_NAMES = split(
    """
    Ada Alma Anton Beatrice Bruno Carla Cedric Clara Daniel Della Edgar Elsa Emil Fanny Felix Flora Gilbert Greta
    Harold Hilda Ida Irving Jasper Julia Karl Laura Leon Lydia Martin Matilda Nora Oscar Paula Quentin Rosa Rupert
    Sibyl Stella Theo Ursula Victor Vera Walter Wanda
    """
)
LAST_NAMES = split(
    """
    Abbott Barlow Benning Calder Corwin Dalton Denholm Ellery Fairfax Fenwick Garrick Hadley Harlow Ingram Jessup
    Kendall Lockhart Marlow Merrick Norwood Oakley Pemberton Quimby Radcliff Rowland Sheffield Stanton Thornton
    Underhill Vaughan Wakefield Whitlock Yarrow Zimmer
    """
)
TOWN_BEGINNINGS = split(
    "Ash Birch Cliff Dale Elm Fern Glen Heath Holly Linden Maple Moor Oak Pine Reed Rock Stone Thorn"
)
TOWN_ENDS = split("bridge bury field ford ham haven mouth port stead ton wick worth")
TRADES = split(
    """
    architect baker barber bookbinder brewer carpenter chemist clerk cobbler cook dentist diver farmer fisher florist
    gardener glazier goldsmith hatter jeweler lawyer librarian locksmith mason miller miner nurse optician painter
    pharmacist pilot plumber potter printer sailor sculptor singer surgeon tailor tanner teacher weaver
    """
)
WARES = split(
    "boots brushes buttons cameras candles carpets clocks fans furnaces gloves hats kettles lamps lenses locks "
    "mirrors organs paints pens pianos pumps ropes scales sails soaps springs stoves tiles tools trunks watches"
)
PASTIMES = split("archery chess dancing drawing fencing fishing hiking juggling painting rowing singing skating")

_WHO = (
    "hardly anyone", "a good neighbor", "every traveler", "an old friend", "the careful reader", "a young writer",
    "the whole town", "nobody in the room", "anyone who has waited", "a patient teacher", "the first visitor",
    "the keeper of the house", "a stranger at the door", "whoever starts a thing", "the crowd in the square",
)  # fmt: skip
_DOES = (
    "learns to listen before speaking", "forgets what was promised in spring", "looks for a shorter road",
    "keeps a little bread for later", "remembers the sound of the rain", "wants to be asked twice",
    "finds the answer by walking", "sees more than can be told", "turns back at the last bend",
    "makes a habit of small things", "pays more for less", "trusts the map and not the river",
    "counts the windows on the way home", "builds something that will not last", "leaves the door unlocked",
    "changes the subject when it grows late", "takes advice and does the opposite", "waits for better weather",
)  # fmt: skip
_WHEN = (
    "in the early morning", "after a long winter", "when the market closes", "on the way to work",
    "before the letters arrive", "in a year of good harvests", "while the kettle is on", "at the end of the week",
    "once the guests have gone", "in any other season", "when nothing else is left to do", "under a low ceiling",
)  # fmt: skip
_THOUGHTS = (
    "That is not a rule, but it is close to one.", "There is more than one way to read this.",
    "It has been said before, and it will be said again.", "Few of us would admit it.",
    "The reason is simpler than it seems.", "I did not believe it until I saw it.",
    "None of this was planned.", "What follows from it is another matter.",
    "The opposite may be just as true.", "It takes time to notice.",
)  # fmt: skip
_TOPICS = (
    "work", "patience", "good company", "a quiet street", "money", "the weather", "an unfinished letter", "music",
    "a long journey", "the sea", "memory", "the small shop", "learning a trade", "a borrowed book", "luck",
    "the garden",
)  # fmt: skip
_SHAPES = (
    "{when}, {who} {does}.",
    "{who} {does}, and {other} {also}.",
    "What I like about {topic} is that {who} {does} {when}.",
    "If {who} {does}, it is because {other} {also}.",
    "They talked about {topic} {when}, though {who} {does}.",
    "{topic} and {more} have this in common: {who} {does}.",
    "It is often {when} that {who} {does}.",
    "Nothing is said of {topic} here, for {who} {does}.",
    "{who} {does} {when}, but {topic} stays as it was.",
    "To think about {topic} {when} is to see why {who} {does}.",
)  # fmt: skip

NOISE = (
    "The river runs to the sea.", "The night was long.", "Bread is baked in the morning.", "We went on.",
    "The road leads home again.",
)  # fmt: skip
"""Five sentences that are said again and again."""


def essay(chance: random.Random) -> Iterator[str]:
    """Sentences without numbers, names or anything to look up, without end."""
    while True:
        if chance.random() < 0.15:
            yield chance.choice(_THOUGHTS)
            continue
        (who, other), (does, also) = chance.sample(_WHO, 2), chance.sample(_DOES, 2)
        topic, more = chance.sample(_TOPICS, 2)
        told = chance.choice(_SHAPES).format(
            who=who, other=other, does=does, also=also, topic=topic, more=more, when=chance.choice(_WHEN)
        )
        yield told[0].upper() + told[1:]


def noise() -> Iterator[str]:
    """The five sentences of `NOISE`, again and again."""
    while True:
        yield from NOISE


def things(chance: random.Random, count: int) -> list[str]:
    """Different things, each a noun with an adjective, or with two where one would not tell so many apart.

    Args:
        chance: draws them.
        count: at most `MOST_THINGS`.
    """
    further = len(ADJECTIVES) - 1 if count > len(ADJECTIVES) * len(NOUNS) // 2 else 1
    found = []
    for one in chance.sample(range(len(ADJECTIVES) * further * len(NOUNS)), count):
        rest, noun = divmod(one, len(NOUNS))
        first, second = divmod(rest, further)
        other = f" {ADJECTIVES[(first + 1 + second) % len(ADJECTIVES)]}" if further > 1 else ""
        found.append(f"{ADJECTIVES[first]}{other} {NOUNS[noun]}")
    return found


MOST_THINGS = len(ADJECTIVES) * (len(ADJECTIVES) - 1) * len(NOUNS)
"""So many different ones there are."""


def numbers(chance: random.Random, count: int, digits: int = 7) -> list[str]:
    """Different numbers of so many digits, the first of which is not 0."""
    return [str(one) for one in chance.sample(range(10 ** (digits - 1), 10**digits), count)]


def identifiers(chance: random.Random, count: int) -> list[str]:
    """Random UUIDs of version 4 (RFC 9562)."""
    return [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]


def letters(chance: random.Random, length: int) -> str:
    """A word that means nothing, in capitals."""
    return "".join(chance.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(length))


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
