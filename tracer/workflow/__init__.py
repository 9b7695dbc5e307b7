"""Joins the stages: what a command or a scheduled job does from start to end."""
