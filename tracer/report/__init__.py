"""Renders results: text, CSV, JSON and the HTML page."""
