"""A chat model as the judge of two answers."""

import random

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig

from llm_costopt.router.judging import comparison, verdict
from llm_costopt.router.shadow import Judge
from llm_costopt.types import Answer, Question


def judge_of(judge: Judge | BaseChatModel | None, config: RunnableConfig) -> Judge | None:
    """Make a chat model a judge whose calls the handlers of *config* see."""
    if not isinstance(judge, BaseChatModel):
        return judge

    def compare(question: Question, answer: Answer, reference: Answer) -> float | None:
        swapped = random.random() < 0.5  # noqa: S311 - against a habit, not an enemy
        return verdict(
            judge.invoke(comparison(question, answer, reference, swapped=swapped), config).text, swapped=swapped
        )

    return compare
