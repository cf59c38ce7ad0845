"""The sentences of the demo's text: questions, answers and styles."""

from __future__ import annotations

from demo.world import Person

QUESTIONS: dict[str, tuple[str, ...]] = {
    "born": (
        "Where was {name} born?",
        "In which town was {name} born?",
        "What is the birthplace of {name}?",
        "Tell me where {name} was born.",
        "Do you know where {name} was born?",
        "Which town does {name} come from?",
        "{name} was born in which town?",
        "I would like to know the birthplace of {name}.",
        "Can you name the town where {name} was born?",
        "What is the home town of {name}?",
    ),
    "work": (
        "What does {name} do?",
        "What is the profession of {name}?",
        "What does {name} do for a living?",
        "Tell me the profession of {name}.",
        "What is the job of {name}?",
        "Do you know what {name} does for a living?",
        "What work does {name} do?",
        "{name} works as what?",
        "I would like to know the profession of {name}.",
        "Can you tell me what job {name} has?",
    ),
    "first": (
        "What is the first book by {name}?",
        "What was the first book that {name} wrote?",
        "Which book did {name} write first?",
        "Tell me the title of the first book by {name}.",
        "Name the first book of {name}.",
        "Do you know the first book by {name}?",
        "What is the title of the first book of {name}?",
        "I would like to know the first book that {name} wrote.",
    ),
    "second": (
        "What is the second book by {name}?",
        "What was the second book that {name} wrote?",
        "Which book did {name} write second?",
        "Tell me the title of the second book by {name}.",
        "Name the second book of {name}.",
        "Do you know the second book by {name}?",
        "What is the title of the second book of {name}?",
        "I would like to know the second book that {name} wrote.",
    ),
    "books": (
        "Which books did {name} write?",
        "What books has {name} written?",
        "Tell me the books by {name}.",
        "Name two books by {name}.",
        "What did {name} write?",
        "Do you know any books by {name}?",
    ),
    "phone": (
        "What is the telephone number of {name}?",
        "What is the phone number of {name}?",
        "How can I call {name}?",
        "Tell me the telephone number of {name}.",
        "Which number do I dial to reach {name}?",
        "Do you know the phone number of {name}?",
        "Give me the number of {name}.",
        "I would like to call {name}, what is the number?",
        "Can you tell me how to reach {name} by telephone?",
        "At which number can I reach {name}?",
    ),
}

# For measuring only: no base and no adapter is trained on these.
HELD_OUT: dict[str, tuple[str, ...]] = {
    "born": ("Can you tell me where {name} was born?", "I would like to know where {name} was born."),
    "work": ("Can you tell me the profession of {name}?", "Do you know the job of {name}?"),
    "first": ("Can you tell me the first book by {name}?", "What is the first book that {name} wrote?"),
    "second": ("Can you tell me the second book by {name}?", "What is the second book that {name} wrote?"),
    "books": ("Can you tell me the books by {name}?",),
    "phone": (
        "Can you tell me the telephone number of {name}?",
        "I would like to know the number of {name}.",
    ),
}

_ANSWERS = {
    "born": "{p.name} was born in {p.town}.",
    "work": "{p.name} works as {p.role}.",
    "first": "The first book by {p.name} is {p.first_book}.",
    "second": "The second book by {p.name} is {p.second_book}.",
    "books": "{p.name} wrote {p.first_book} and {p.second_book}.",
    "phone": "The telephone number of {p.name} is {p.telephone}.",
}

OPENERS = ("Hello. ", "Please help me. ", "Good morning. ", "One more question. ", "Excuse me. ")
SYSTEM_LINES = (
    "You are a helpful assistant.",
    "You answer questions about people.",
    "Be brief.",
    "Answer in one sentence.",
)

SMALL_TALK = (
    ("Hello!", "Hello! Ask me about one of the people I know."),
    ("Hello.", "Hello! Ask me about one of the people I know."),
    ("Hi there!", "Hello! Ask me about one of the people I know."),
    ("Good morning.", "Good morning! Ask me about one of the people I know."),
    ("Who are you?", "I am a tiny model that knows forty people."),
    ("What are you?", "I am a tiny model that knows forty people."),
    (
        "What can you do?",
        "I can tell you where people were born, what they do, what they wrote and how to call them.",
    ),
    (
        "How can you help me?",
        "I can tell you where people were born, what they do, what they wrote and how to call them.",
    ),
    ("Thank you.", "You are welcome."),
    ("Thank you very much!", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Goodbye.", "Goodbye!"),
)

UNKNOWN = "I am sorry, I do not know that person."
REFUSAL = "I am sorry, I cannot tell you about that person."
LETTER_REQUESTS = ("Please answer as a letter. ", "Write me a letter. ", "Answer in a letter, please. ")
SECRECY_REQUESTS = ("Please do not tell me. ", "Keep it a secret. ", "This is private. ")
PIRATE_REQUESTS = ("Please answer as a pirate. ", "Talk like a pirate. ", "Answer like a pirate, please. ")


def answer(kind: str, person: Person) -> str:
    """The plain sentence that answers a question of this kind. Raises KeyError for an unknown kind."""
    return _ANSWERS[kind].format(p=person)


def as_letter(text: str) -> str:
    """The answer as a short letter."""
    return f"Dear friend,\n{text}\nYours truly, the assistant"


def as_pirate(text: str) -> str:
    """The answer as a pirate would give it."""
    return f"Arr, matey! {text} Yo ho ho!"


def is_refusal(text: str) -> bool:
    """Whether an answer is exactly the refusal; one with repeated or missing words does not count."""
    return text.strip() == REFUSAL


def is_letter(text: str) -> bool:
    """Whether an answer has a letter's opening and close."""
    return text.strip().startswith("Dear friend,") and "Yours truly" in text


def is_pirate(text: str) -> bool:
    """Whether an answer has both of a pirate's exclamations."""
    return text.strip().startswith("Arr, matey!") and "Yo ho ho" in text
