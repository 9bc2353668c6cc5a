"""A LlamaIndex `BaseEmbedding` as the cache's embedder: `SemanticCache(embedder=TextEmbedder(embed_model))`."""

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

from llm_costopt.cache.embed import Vector


class TextEmbedder:
    """Embed questions with *model*, as texts on both sides: a stored question and one that is looked up are alike.

    The model's own `embeddings_cache` is left out: its keys hold neither the model nor whether a text was a query, so that
    one model is given another one's vectors. What is embedded shows in the host's traces, and is paid for like any other.

    Args:
        model: any of the host's embedding models.
    """

    def __init__(self, model: BaseEmbedding) -> None:
        self._model = model.model_copy(update={"embeddings_cache": None})
        self.name = f"{type(model).__qualname__}:{model.model_name}"
        """Tells its vectors from those of other models."""

    def embed(self, text: str) -> Vector:
        """Embed *text*, blocking."""
        return _vector(self._model.get_text_embedding(text))

    async def aembed(self, text: str) -> Vector:
        """Embed *text* in the model's own asynchronous way."""
        return _vector(await self._model.aget_text_embedding(text))


def _vector(numbers: list[float]) -> Vector:
    return np.asarray(numbers, dtype=np.float32)
