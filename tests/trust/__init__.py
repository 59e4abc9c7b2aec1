"""The trust suite: hours of damage, kills and planted bugs, in parts that can be broken off and gone on with.

make trust SECONDS=7200        # writes build/trust/report.md; docs/trust.md is the last one that was kept
"""
