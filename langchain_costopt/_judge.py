"""A chat model as the judge of two answers."""

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig

from llm_costopt.router.judging import judge_by
from llm_costopt.router.shadow import Judge


def judge_of(judge: Judge | BaseChatModel | None, config: RunnableConfig) -> Judge | None:
    """Make a chat model a judge whose calls the handlers of *config* see."""
    return judge_by(lambda text: judge.invoke(text, config).text) if isinstance(judge, BaseChatModel) else judge
