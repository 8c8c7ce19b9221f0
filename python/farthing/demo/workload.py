"""What the demo asks: the calls of a small shop's support bot, order desk, docs lookup and nightly classification job.

Short answers, each of which can be checked, and repeats as such traffic has them: the same question from many
customers, a burst when something happens, a job that is run again. The texts are the project's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

__all__ = ["Ask", "jobs", "steps"]


@dataclass(frozen=True)
class Ask:
    """One request and how its answer is checked.

    Attributes:
        tag: which application asks.
        system, user: the messages.
        expected: what the answer must say, as a whole word, in any case.
        stream: whether the application streams the answer.
        result: of a tool that the model has called to answer; empty = none.
    """

    tag: str
    system: str
    user: str
    expected: str
    stream: bool = False
    result: str = ""

    def is_right(self, answer: str) -> bool:
        """Whether the expected word is there and, where it is one of several labels, none of the others."""
        said = answer.lower()
        if not re.search(rf"(?<![\w.]){re.escape(self.expected.lower())}(?!\w)", said):
            return False
        labels = re.findall(r"^- (\w+):", self.system, re.MULTILINE)
        others = set(labels) - {self.expected} if self.expected in labels else set()
        return not any(re.search(rf"\b{label}\b", said) for label in others)


SUPPORT = """You sort the messages of customers of an online shop. Answer with exactly one of these labels:
- delivery: where a parcel is, when it comes, that it did not come
- refund: money back, returning a thing
- payment: a card or a charge that went wrong, an invoice
- account: login, password, changing personal data
- product: what a thing can do, sizes, stock
- complaint: anger about people or service
Answer with the label only, one word, nothing else."""

SUPPORT_ASKS = (
    ("Where is my parcel? It was sent a week ago.", "delivery"),
    ("I want my money back for the lamp.", "refund"),
    ("I forgot my password and cannot log in.", "account"),
    ("My card was charged twice for one order.", "payment"),
    ("Does the blue jacket come in size XL?", "product"),
    ("Your agent on the phone was rude to me!", "complaint"),
    ("The courier says delivered, but nothing is here.", "delivery"),
    ("How do I send back shoes that do not fit?", "refund"),
    ("Please change the email address of my profile.", "account"),
    ("I need an invoice with our company's VAT number.", "payment"),
    ("Is the coffee machine in stock again?", "product"),
    ("Three weeks without an answer. Your service is a disgrace.", "complaint"),
)

DOCS = """You answer questions about the settings of the program tidewatch. All that is known:
- poll_seconds: how often the gauge is read; default 45, at least 5
- retries: how often a failed read is repeated; default 4
- log_level: one of quiet, normal, noisy; default normal
- store: folder of the readings; default /var/lib/tidewatch
- keep_days: how long readings are kept; default 400
- port: of the web page; default 8610
- alarm_metres: level of the alarm; default 6.5
Answer with the value only, nothing else."""

DOCS_ASKS = (
    ("Which port does the web page use by default?", "8610"),
    ("For how many days are readings kept?", "400"),
    ("How often is a failed read repeated?", "4"),
    ("What is the default log level?", "normal"),
    ("In which folder are the readings?", "/var/lib/tidewatch"),
    ("At what level in metres does the alarm go off?", "6.5"),
    ("What is the smallest allowed poll_seconds?", "5"),
    ("How many seconds lie between two reads by default?", "45"),
    ("Which log level writes the most?", "noisy"),
)

ORDERS = """You answer a customer's questions about their orders, from what the tool `orders` says.
Answer with the value only, as few words as possible."""

_FIELDS = ("order", "article", "size", "status", "total_eur")
_ROWS = (
    (1042, "blue jacket", "XL", "shipped", 79.5),
    (1057, "desk lamp", "one", "delivered", 24.9),
    (1061, "running shoes", "43", "cancelled", 110.0),
    (1068, "coffee machine", "one", "packed", 129.5),
    (1073, "wool scarf", "one", "returned", 32.0),
    (1080, "garden hose", "25 m", "paid", 18.75),
)
ORDERS_RESULT = json.dumps([dict(zip(_FIELDS, row, strict=True)) for row in _ROWS], indent=2)
"""As such tools answer: indented, each name as often as there are rows."""

ORDERS_ASKS = (
    ("What is the status of order 1068?", "packed"),
    ("What is the number of the order of the desk lamp?", "1057"),
    ("What is the status of my running shoes?", "cancelled"),
    ("What did I pay for the wool scarf, in euro?", "32.0"),
)

NIGHTLY = """You read reviews of a hotel. Decide what each review is mainly about. Labels:
- room: the room, its bed, its bath, its view
- food: breakfast, restaurant, drinks
- staff: the people who work there
- price: what it costs, what it is worth
- place: the way there, the surroundings, noise from outside
Answer with the label only, one word, nothing else."""

NIGHTLY_ASKS = (
    ("The bed was hard and the shower cold.", "room"),
    ("Best breakfast of our whole trip, fresh bread every day.", "food"),
    ("The woman at the desk found us a doctor at midnight.", "staff"),
    ("Far too expensive for what you get.", "price"),
    ("Five minutes to the beach, and the station is close.", "place"),
    ("Trucks on the road outside kept us awake.", "place"),
    ("The waiters were kind and quick.", "staff"),
    ("The soup was cold and the wine sour.", "food"),
    ("A lovely balcony over the sea.", "room"),
    ("For this little money it is a bargain.", "price"),
)


def steps() -> Iterator[list[Ask]]:
    """The workload: one step after the other, the requests of a step at the same time."""
    support = [Ask("support", SUPPORT, user, expected) for user, expected in SUPPORT_ASKS]
    docs = [Ask("docs", DOCS, user, expected) for user, expected in DOCS_ASKS]
    orders = [Ask("orders", ORDERS, user, said, result=ORDERS_RESULT) for user, said in ORDERS_ASKS]
    nightly = [Ask("nightly", NIGHTLY, user, expected) for user, expected in NIGHTLY_ASKS]

    # A morning: customers, and readers of the docs, who see their answers as they are written.
    for first, second in zip(support[:8], docs[:8], strict=True):
        yield [first]
        yield [streamed(second)]
    # The parcels are late today.
    yield [support[0]] * 4
    yield [support[6], support[6]]
    # The afternoon: some questions are everybody's, some are new.
    for number in (0, 3, 1, 8, 2, 9, 3, 10, 7, 11):
        yield [support[number]]
    for number in (0, 1, 8, 0, 4, 5, 0, 8, 3):
        yield [docs[number]]
    yield [streamed(support[2])]
    for ask in orders:
        yield [ask]
    # The night: the job runs, stops at the eighth review, and is started again.
    for ask in [*nightly[:8], *nightly]:
        yield [ask]


def jobs(night: Iterable[list[Ask]]) -> list[list[Ask]]:
    """The steps of the night as a job would ask them that knows its reviews beforehand: until it stops, and again."""
    asks = [ask for step in night for ask in step]
    first = len(asks) - len(NIGHTLY_ASKS)
    return [asks[:first], asks[first:]]


def streamed(ask: Ask) -> Ask:
    return replace(ask, stream=True)
