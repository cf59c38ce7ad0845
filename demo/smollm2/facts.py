"""Short questions with one right answer, none of them about France, and what the answer must contain."""

from __future__ import annotations

import re

_CAPITALS = """
Italy Rome; Germany Berlin; Spain Madrid; England London; Japan Tokyo; China Beijing; India Delhi; Egypt Cairo;
Greece Athens; Canada Ottawa; Brazil Brasilia|Brasília; Russia Moscow; Australia Canberra; Portugal Lisbon;
Poland Warsaw;
Sweden Stockholm; Norway Oslo; Turkey Ankara; Austria Vienna; Belgium Brussels; Ireland Dublin; Hungary Budapest;
Denmark Copenhagen; Finland Helsinki; Cuba Havana; Kenya Nairobi; Iran Tehran; Peru Lima; Chile Santiago;
Thailand Bangkok
"""
_OTHERS = """
Which planet is closest to the sun? Mercury
Which planet is known as the red planet? Mars
What is the largest planet of the solar system? Jupiter
What is the chemical symbol of water? H2O
What is the chemical symbol of gold? Au
What gas do plants take in from the air? carbon dioxide
What do bees make? honey
How many legs does a spider have? eight|8
How many days are there in a week? seven|7
How many months are there in a year? twelve|12
How many continents are there? seven|7
What is the largest ocean on Earth? Pacific
What is the tallest mountain in the world? Everest
What is the longest river in Africa? Nile
Who wrote Romeo and Juliet? Shakespeare
Who painted the Mona Lisa? Leonardo
Who discovered gravity? Newton
Who developed the theory of relativity? Einstein
Who was the first president of the United States? Washington
Who was the first person to walk on the moon? Armstrong
Who invented the telephone? Bell
What is the currency of Japan? yen
What is the currency of the United Kingdom? pound
What do people in Brazil speak? Portuguese
What do people in Germany speak? German
On which continent is Egypt? Africa
On which continent is Brazil? South America
What is the opposite of hot? cold
What is the opposite of up? down
What is the last letter of the alphabet? Z
What colour is the sky on a clear day? blue
What colour do you get by mixing red and yellow? orange
What is the freezing point of water in degrees Celsius? 0
What is the boiling point of water in degrees Celsius? 100
What is 2 plus 2? 4
What is 5 plus 3? 8
What is 10 minus 4? 6
What is 3 times 3? 9
Which animal is called the king of the jungle? lion
What is a baby cat called? kitten
What is a baby dog called? puppy
What do cows eat? grass
What is the largest land animal? elephant
What is the fastest land animal? cheetah
Which bird cannot fly and lives in Antarctica? penguin
What organ pumps blood through the body? heart
What do we breathe in to live? oxygen
What is frozen water called? ice
What is the star at the centre of our solar system? Sun
In which country are the pyramids of Giza? Egypt
In which country is the Great Wall? China
In which city is Big Ben? London
In which city is the Statue of Liberty? New York
In which city is the Colosseum? Rome
What is the main ingredient of bread? flour|wheat
What fruit is wine made from? grape
What is sushi made of? rice
Which sport is played at Wimbledon? tennis
How many players are in a football team on the field? eleven|11
What instrument has black and white keys? piano
Which season comes after winter? spring
What is the day after Monday? Tuesday
Which month comes after March? April
What does a thermometer measure? temperature
What does a clock show? time
Which metal is attracted by a magnet? iron
What is the hardest natural material? diamond
What is the name of our galaxy? Milky Way
How many minutes are in an hour? 60|sixty
How many seconds are in a minute? 60|sixty
"""


def facts() -> list[tuple[str, tuple[str, ...]]]:
    """A hundred questions, each with the words of which its answer must contain one."""
    capitals = [each.strip().rsplit(" ", 1) for each in _CAPITALS.replace("\n", " ").split(";")]
    found = [(f"Tell me the capital of {country}.", tuple(city.split("|"))) for country, city in capitals]
    for line in _OTHERS.strip().splitlines():
        question, _, answer = line.partition("? ")
        found.append((f"{question}?", tuple(answer.split("|"))))
    return found


def told(answer: str, words: tuple[str, ...]) -> bool:
    """Whether an answer contains one of these words, or its plural."""
    return any(re.search(rf"\b{re.escape(word)}s?\b", answer, re.IGNORECASE) for word in words)
