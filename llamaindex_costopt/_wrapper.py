"""What wrappers of one model share: it is called through them, and everything else is its own business."""

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from pydantic import ConfigDict, Field

from llamaindex_costopt._convert import identity, model_of
from llamaindex_costopt._template import asking
from llamaindex_costopt._view import view
from llm_costopt.router.start import Model

MIRRORED = (
    "system_prompt", "messages_to_prompt", "completion_to_prompt", "output_parser", "pydantic_program_mode",
    "query_wrapper_prompt", "callback_manager", "rate_limiter",
)  # fmt: skip
"""What hosts read off a model, or set on it, and what belongs to the model inside."""


def stays(model: Any) -> dict[str, Any]:
    """Refuse that *model* is pickled: the host would take cache, budgets and what was learned out of the copy, and out of *model*.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"{type(model).__name__} cannot be pickled: what it keeps lives in this process, make another there"
    )


class Wrapper(FunctionCallingLLM):
    """Let *llm* be called through this object's eight endpoints, which a subclass defines.

    The endpoints are not decorated as the host's own are: the model inside emits one event for each real call, and a
    second one would count every token twice.
    """

    model_config = ConfigDict(extra="forbid")  # a misspelt option would be left out in silence

    llm: LLM = Field(exclude=True)
    """The model inside; not among what `to_dict` gives, since that would hold its key."""

    def __init__(self, llm: LLM, **options: Any) -> None:
        if not isinstance(llm, LLM):
            raise TypeError(f"llm is a model of LlamaIndex, such as OpenAI(…), not {llm!r}")
        super().__init__(llm=llm, **{name: getattr(llm, name) for name in MIRRORED} | options)
        for name in options.keys() & set(MIRRORED):
            setattr(llm, name, options[name])

    __getstate__ = stays

    def __setattr__(self, name: str, value: Any) -> None:
        # `Settings.llm` sets its callback manager on whatever it holds, each time that it is read.
        if name in MIRRORED:
            setattr(self.llm, name, value)
        super().__setattr__(name, value)

    @property
    def metadata(self) -> LLMMetadata:
        """Give those of the model inside."""
        return self.llm.metadata

    @property
    def costopt_model(self) -> Model:
        """Name the model inside and its provider."""
        return model_of(self.llm)

    @property
    def costopt_baseline(self) -> str | None:
        """Name the model that an answer is held against, if a router inside says so."""
        return getattr(self.llm, "costopt_baseline", None)

    def costopt_identity(self) -> Any:
        """Say all that an answer depends on, for the key of a cache."""
        return identity(self.llm)

    def _inside(self) -> Any:
        """Return the model inside with its calls diverted to this object."""
        return view(self.llm, self)

    # ---- The question stands apart from its context in these four. ----

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in *prompt*, ask and return the text."""
        with asking(self.llm, prompt, prompt_args):
            return cast("str", self._inside().predict(prompt, **prompt_args))

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in *prompt*, ask and return the text."""
        with asking(self.llm, prompt, prompt_args):
            return cast("str", await self._inside().apredict(prompt, **prompt_args))

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> Any:
        """Fill in *prompt*, ask and return the pieces of the text."""
        with asking(self.llm, prompt, prompt_args):
            return self._inside().stream(prompt, **prompt_args)

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> Any:
        """Fill in *prompt*, ask and return the pieces of the text."""
        with asking(self.llm, prompt, prompt_args):
            return await self._inside().astream(prompt, **prompt_args)

    # ---- How a structure is asked for differs from model to model. ----

    def structured_predict(self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any) -> Any:
        """Ask for an *output_cls*."""
        return self._inside().structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)

    async def astructured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        """Ask for an *output_cls*."""
        return await self._inside().astructured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)

    def stream_structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Generator[Any, None, None]:
        """Ask for an *output_cls*, and show it as it grows."""
        inside = self._inside()
        return cast(
            "Generator[Any, None, None]",
            inside.stream_structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args),
        )

    async def astream_structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> AsyncGenerator[Any, None]:
        """Ask for an *output_cls*, and show it as it grows."""
        inside = self._inside()
        found = await inside.astream_structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)
        return cast("AsyncGenerator[Any, None]", found)

    # ---- Tools: each model prepares its own request and reads its own replies. ----

    def chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> ChatResponse:
        """Chat with *tools*."""
        return cast("ChatResponse", self._inside().chat_with_tools(tools, *args, **_own_history(kwargs)))

    async def achat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> ChatResponse:
        """Chat with *tools*."""
        return cast("ChatResponse", await self._inside().achat_with_tools(tools, *args, **_own_history(kwargs)))

    def stream_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Chat with *tools*, and show the reply as it grows."""
        return self._inside().stream_chat_with_tools(tools, *args, **_own_history(kwargs))

    async def astream_chat_with_tools(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Chat with *tools*, and show the reply as it grows."""
        return await self._inside().astream_chat_with_tools(tools, *args, **_own_history(kwargs))

    def predict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Ask which of *tools* to call, and call it."""
        return self._inside().predict_and_call(tools, *args, **_own_history(kwargs))

    async def apredict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> Any:
        """Ask which of *tools* to call, and call it."""
        return await self._inside().apredict_and_call(tools, *args, **_own_history(kwargs))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the tool calls of *response* as the model inside does."""
        inside: Any = self.llm
        found = inside.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call, **kwargs)
        return cast("list[ToolSelection]", found)

    def _prepare_chat_with_tools(  # noqa: PLR0917 - the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,  # by name: the host looks for it in this signature
        **kwargs: Any,
    ) -> dict[str, Any]:
        inside: Any = self.llm
        prepared = inside._prepare_chat_with_tools_compat(  # noqa: SLF001 - the host's way to call it
            tools,
            user_msg=user_msg,
            chat_history=None if chat_history is None else list(chat_history),
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required,
            **kwargs,
        )
        return cast("dict[str, Any]", prepared)

    def _validate_chat_with_tools_response(
        self, response: ChatResponse, tools: Sequence[BaseTool], allow_parallel_tool_calls: bool = False, **kwargs: Any
    ) -> ChatResponse:
        inside: Any = self.llm
        checked = inside._validate_chat_with_tools_response(  # noqa: SLF001
            response, tools, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )
        return cast("ChatResponse", checked)


def _own_history(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Copy the list of earlier messages: integrations append the new one to whatever they are handed."""
    history = kwargs.get("chat_history")
    return kwargs if history is None else {**kwargs, "chat_history": list(history)}
