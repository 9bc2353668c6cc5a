"""The router: the cheapest model that can answer does, and a doubtful answer is escalated."""
