"""Incidents as Slack messages, and the stand-in for Slack. Pure, but for the stand-in's own server."""
