"""The durable store: the spec first, results as they come, a completion mark last."""
