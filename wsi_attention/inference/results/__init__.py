"""The results folder: what lies in it, what resume trusts, and what can be made of it again."""
