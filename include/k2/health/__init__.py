"""The daily judgement of the platform: readings, checks against the runbook's thresholds, the report. Readers apart from judges."""
