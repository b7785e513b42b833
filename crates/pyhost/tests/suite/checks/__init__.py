"""The checks: each file holds its applications and what is asked of them."""
