"""Predictors: speech enhancement of other kinds, whose answer is evidence about speech."""
