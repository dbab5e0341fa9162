"""Which cut, measured: probes, costs, choice, and the command over them. Read advise.py first."""
