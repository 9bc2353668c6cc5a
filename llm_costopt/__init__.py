"""Cut what an application pays for LLM inference; this package knows no framework and calls no model."""
