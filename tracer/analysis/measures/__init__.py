"""Measures of routing: SQL of ``queries/measures`` with chance levels and intervals.

A measure reads relations that ``inputs`` makes of the lake. Its chance level is the same SQL over
relations that ``nulls`` drew at random, its interval the same SQL over requests drawn anew.
"""
