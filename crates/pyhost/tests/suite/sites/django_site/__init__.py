"""A Django project: a board with messages, its forms, its admin, an upload and a stream."""
