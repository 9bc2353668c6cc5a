"""The semantic cache: the same question in other words is answered from store, a different one never is."""
