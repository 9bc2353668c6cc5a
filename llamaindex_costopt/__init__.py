"""Cost cutting for LlamaIndex: the same four features as `langchain_costopt`; nothing is in it yet."""
