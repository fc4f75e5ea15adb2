"""Tasks: extracted splits to a table of what is asked of them. Must not know train, analyze or a card."""
