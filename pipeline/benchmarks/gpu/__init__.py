"""What a GPU is to be asked as soon as there is one: `make gpu`, in steps that are worth the most first.

A step has parts; each part's result is a file of its own, written as soon as it is known (docs/decisions/0027).
"""
