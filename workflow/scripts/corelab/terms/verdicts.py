"""Verdicts on scans, masks and series: the charter, brain masks and gates use the same words."""

PASS = "pass"
WARN = "warn"
FAIL = "fail"
#: The value that a limit is on is not known.
NOT_ASSESSABLE = "not_assessable"
