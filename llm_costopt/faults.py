"""What is plainly wrong with an answer, whoever asks: the cache does not store it, the router does not accept it."""

import re

from llm_costopt.types import Answer

_REFUSAL = re.compile(
    r"^\W*(?:i(?:['’]?m| am) (?:very |so |really )?sorry\b[^.!?\n]{0,40}?\b(?:i|we) ?(?:can['’]?t|cannot|can not"
    r"|couldn['’]?t|could not|don['’]?t|do not|won['’]?t|will not|(?:am|are|['’]m|['’]re) (?:not|unable))\b"
    r"|(?:unfortunately|sorry|apologies)\W+(?:but )?i (?:can['’]?t|cannot|can not|am unable|am not able|['’]m unable|['’]m not able)"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|will not|am unable to|am not able to|['’]m unable to|['’]m not able to)"
    r" (?:help|assist|comply|provide|fulfil|fulfill|answer|do that|continue|discuss)"
    r"|i['’]m (?:unable|not able) to (?:help|assist|comply|provide|fulfil|fulfill|answer|discuss)"
    r"|as an ai(?: language model| assistant)?,? i (?:can['’]?t|cannot|am unable|am not able))",
    re.IGNORECASE,
)


def fault(answer: Answer) -> str | None:
    """Name what makes *answer* unfit to be served: `truncated`, `filtered`, `refused`, `unparsable` or `empty`.

    Refusals in words are recognised only at the start of the text, where models put them.
    """
    if answer.finish == "length":
        return "truncated"
    if answer.finish == "filter":
        return "filtered"
    if answer.refused or _REFUSAL.match(answer.text):
        return "refused"
    if answer.invalid:
        return "unparsable"
    if not answer.text.strip() and not answer.tool_calls:
        return "empty"
    return None
