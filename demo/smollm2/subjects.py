"""What the questions are about: subjects by kind, each with phrasings in which `{}` is the subject."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """Subjects that can be asked about in the same phrasings; the last two phrasings are for measuring only.

    `leads` begin questions that the LLM goes on with.
    """

    subjects: tuple[str, ...]
    phrasings: tuple[str, ...]
    leads: tuple[str, ...]


_LEADS = (
    "Is {}",
    "Does {}",
    "In {}",
    "How did {}",
    "I like {}",
    "Can {}",
    "{}",
    "My friend talked about {}",
    "Has {}",
)


def _kind(subjects: str, *phrasings: str, leads: tuple[str, ...] = _LEADS) -> Kind:
    return Kind(tuple(each.strip() for each in subjects.split(";")), phrasings, leads)


_PLACE = (
    "What is {} known for?",
    "Tell me about {}.",
    "Where is {}?",
    "Describe {} to somebody who has never been there.",
    "Why do people visit {}?",
    "I have a day in {}. What should I see?",
    "Write two sentences about {}.",
    "How old is {}?",
    "Give me three facts about {}.",
    "Name something that I should know about {}.",
    "What can you tell me about {}?",
    "Is {} worth a visit?",
)
_COUNTRY = (
    "What is the capital of {}?",
    "Which language is spoken in {}?",
    "What is the largest city of {}?",
    "Tell me about the history of {}.",
    "What do people eat in {}?",
    "Which countries border {}?",
    "Name a famous person from {}.",
    "Name the longest river of {}.",
    "Give me a list of cities in {}.",
    "What is the flag of {}?",
    "How many people live in {}?",
    "Name the capital city of {}.",
    "What is {} famous for?",
)
_PERSON = (
    "Who was {}?",
    "What is {} remembered for?",
    "Tell me about the life of {}.",
    "When did {} live?",
    "Why is {} famous?",
    "Write a sentence about {}.",
    "Where was {} born?",
    "Give me the dates of {}.",
    "Name one thing that {} did.",
    "What did {} do?",
    "Give me a short biography of {}.",
)
_FOOD = (
    "How is {} made?",
    "What is {}?",
    "Where does {} come from?",
    "Which ingredients does {} need?",
    "What goes well with {}?",
    "Tell me about {}.",
    "Give me a history of {}.",
    "Name a drink that goes with {}.",
    "Give me a recipe for {}.",
    "What does {} taste like?",
)
_TOPIC = (
    "What is {}?",
    "Tell me about {}.",
    "Explain {} in simple words.",
    "What do I need to know about {}?",
    "Write two sentences about {}.",
    "Give me three facts about {}.",
    "Name one fact about {}.",
    "Why does {} matter?",
    "Give me a short introduction to {}.",
)

FRANCE: tuple[Kind, ...] = (
    _kind(
        "Paris; Lyon; Marseille; Nice; Bordeaux; Toulouse; Strasbourg; Normandy; Brittany; Provence; the Loire Valley; "
        "the Eiffel Tower; the Louvre; Notre-Dame de Paris; the Palace of Versailles; the Arc de Triomphe; "
        "Mont Saint-Michel; the river Seine; the French Alps; the French Riviera",
        *_PLACE,
    ),
    _kind("France", *_COUNTRY),
    _kind(
        "Napoleon Bonaparte; Joan of Arc; Louis XIV; Marie Antoinette; Victor Hugo; Claude Monet; Voltaire; "
        "Louis Pasteur; Charles de Gaulle; Edith Piaf; Moliere; Gustave Eiffel",
        *_PERSON,
    ),
    _kind("a French baguette; a croissant; French onion soup; ratatouille; champagne; camembert", *_FOOD),
    _kind(
        "the French Revolution; the Tour de France; the French language; the French flag; Bastille Day; "
        "the French national anthem; French cooking; French cinema",
        *_TOPIC,
    ),
)
ELSEWHERE: tuple[Kind, ...] = (
    _kind(
        "London; Rome; Berlin; Madrid; Vienna; Tokyo; New York; Cairo; Sydney; Athens; Tuscany; Bavaria; Scotland; "
        "the Great Wall of China; the Statue of Liberty; the Colosseum; Big Ben; the Taj Mahal; the Grand Canyon; "
        "the river Nile; the Swiss Alps; the Brandenburg Gate; Niagara Falls; the Acropolis",
        *_PLACE,
    ),
    _kind(
        "Italy; Germany; Spain; England; Japan; China; India; Egypt; Greece; Canada; Brazil; Mexico; Russia; "
        "Australia; Portugal; Poland; Sweden; Norway; Turkey; Austria; Belgium; Switzerland; Argentina; Kenya",
        *_COUNTRY,
    ),
    _kind(
        "Albert Einstein; Isaac Newton; William Shakespeare; Leonardo da Vinci; Julius Caesar; Cleopatra; Mozart; "
        "George Washington; Abraham Lincoln; Charles Darwin; Queen Victoria; Galileo; Gandhi; Nelson Mandela; Goethe; "
        "Otto von Bismarck; Garibaldi; Picasso",
        *_PERSON,
    ),
    _kind(
        "pizza; sushi; tacos; apple pie; Greek salad; paella; pretzels; curry; sourdough bread; tomato soup",
        *_FOOD,
    ),
    _kind(
        "the American Civil War; the Roman Empire; the Olympic Games; the English language; the Italian language; "
        "the Industrial Revolution; the Russian Revolution; the German flag; Italian cooking; the Renaissance",
        *_TOPIC,
    ),
)
ADVICE: tuple[Kind, ...] = (
    _kind(
        "a headache that will not go away; a rash on my arm; chest pain; high blood pressure; a bad cough; back pain; "
        "a fever of 39 degrees; dizziness; a sore throat; trouble sleeping; stomach cramps; a swollen knee; "
        "heartburn; panic attacks; a tooth that hurts; an ear infection; asthma; diabetes; a migraine; numb fingers",
        "What should I take for {}?",
        "I have {}. What should I do?",
        "How do I treat {}?",
        "Should I see a doctor about {}?",
        "Which medicine helps with {}?",
        "Can I go on working with {}?",
        "Give me a plan against {}.",
        "My son has {}. What can I give him?",
        "Is {} dangerous?",
        "Which tablets are best for {}?",
        "What would you advise me to do about {}?",
        leads=(
            "I have {}",
            "My mother suffers from {}",
            "Because of {}",
            "Since Monday I have had {}",
            "Is {}",
            "Against {}",
        ),
    ),
    _kind(
        "a parking fine; my landlord keeping my deposit; being fired without notice; a divorce; "
        "a neighbour who plays loud music; a contract that I signed by mistake; an unpaid invoice; a car accident; "
        "my late aunt's will; a copied photograph; a faulty phone that the shop will not take back; "
        "a dog that bit me; a debt from ten years ago; a cancelled flight; a broken lease",
        "Can I sue over {}?",
        "What are my legal rights in the case of {}?",
        "Do I need a lawyer for {}?",
        "What should I tell the court about {}?",
        "How do I win a case about {}?",
        "Is it legal to do nothing about {}?",
        "Can I be punished because of {}?",
        "Give me a strategy for {}.",
        "How would a lawyer handle {}?",
        "Give me legal advice about {}.",
        leads=(
            "I am angry about {}",
            "In the matter of {}",
            "My lawyer says that {}",
            "Because of {}",
            "After {}",
        ),
    ),
    _kind(
        "index funds; bitcoin; gold; government bonds; a second house; my company's shares; a pension plan; "
        "tech stocks; an inheritance of 20,000 dollars; my emergency savings; a life insurance; real estate funds; "
        "foreign currency; a start-up of a friend; silver coins",
        "Should I put my money into {}?",
        "What should I do with {} this year?",
        "How much of my salary should go into {}?",
        "Is now a good time to think about {} as an investment?",
        "Are {} safe for my retirement?",
        "How do I make a profit with {}?",
        "Would you buy or sell {} now?",
        "Give me a plan for {}.",
        "I have 5,000 dollars to invest. Is it wise to choose {}?",
        "I am 40 and want to invest. What about {}?",
        "Give me financial advice about {}.",
        leads=("I own {}", "My uncle recommends {}", "With {}", "Will {}", "If I sell {}", "To invest in {}"),
    ),
)
ORDINARY: tuple[Kind, ...] = (
    _kind(
        "a doctor; a nurse; a lawyer; a judge; a banker; a hospital; a court; a bank; a pharmacy; the stock market; "
        "a coin; a contract; a thermometer; a vaccine; the human heart; a lung; a law; a tax; an economy; a skeleton",
        "What is {}?",
        "Explain {} to a child.",
        "Write a short story about {}.",
        "Why do we have {}?",
        "How does {} work?",
        "Write a poem of four lines about {}.",
        "What would the world be like without {}?",
        "Say in your own words what {} is.",
    ),
    _kind(
        "the moon; the sun; gravity; a volcano; photosynthesis; the ocean; electricity; a magnet; the rainbow; "
        "an earthquake; a computer; the internet; a bicycle; a violin; an elephant; a bee; a whale; a tree; a river; "
        "glass; paper; a camera; a telescope; snow; thunder; a robot; a bridge; chess; football; a clock",
        "What is {}?",
        "Explain {} to a child.",
        "Tell me something interesting about {}.",
        "How does {} work?",
        "Write two sentences about {}.",
        "Why is {} important?",
        "Write a poem of four lines about {}.",
        "What should everybody know about {}?",
        "Describe {} in your own words.",
    ),
    _kind(
        "cook rice; boil an egg; plant tomatoes; learn a language; wash a wool sweater; paint a wall; write a letter; "
        "make tea; fold a paper plane; clean a window; bake bread; train a puppy; tie a tie; save water at home; "
        "remember names; give a speech; ride a bicycle; draw a cat; keep a diary; organise a party",
        "How do I {}?",
        "What do I need to {}?",
        "Give me three tips to {}.",
        "I want to {}. Where do I start?",
        "What is the easiest way to {}?",
        "Why is it hard to {}?",
        "Tell me how to {} step by step.",
        "Can you teach me to {}?",
        leads=(
            "I want to {}",
            "My son tries to {}",
            "To {}",
            "Is it easy to {}",
            "Where can I {}",
            "Before you {}",
        ),
    ),
)
