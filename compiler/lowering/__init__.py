"""Operator families to tile work: layouts, splits over the tiles, schedules, programs."""
