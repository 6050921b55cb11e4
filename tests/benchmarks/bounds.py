"""Rows that miss what they should reach, and what bounds each: by measurement, not by guess. `report.stale` names the rows that
stand here and are met."""

from __future__ import annotations

BOUNDS: dict[str, str] = {}
