"""The terms of the objective as pure functions, and how they reach the parts of a batch held elsewhere."""
