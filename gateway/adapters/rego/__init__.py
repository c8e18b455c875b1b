"""The embedded policy engine: Rego evaluated by regorus in worker processes, with what ``policy check|test`` need."""
