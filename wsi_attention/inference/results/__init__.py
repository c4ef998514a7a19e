"""The results folder: what is in it, what a second run may trust, and what can be made from it again."""
