"""An adapter from an instruction: the base itself, told by a system prompt, gives what is learnt."""

from steering.training.instruction.answers import AnswerOptions, Answers, AnswersError, obtain_answers
from steering.training.instruction.effect import Effect, effect_rows, measure_effect
from steering.training.instruction.prompts import encode_told, read_prompts

__all__ = [
    "AnswerOptions",
    "Answers",
    "AnswersError",
    "Effect",
    "effect_rows",
    "encode_told",
    "measure_effect",
    "obtain_answers",
    "read_prompts",
]
