"""The board: messages, a form for them, and what comes with it."""
