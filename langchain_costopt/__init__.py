"""Cost cutting for LangChain: a semantic cache, a router, micro-batching and a cost monitor."""
