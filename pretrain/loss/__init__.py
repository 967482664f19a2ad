"""The terms of the objective as pure functions, and how a term reaches the part of the batch held elsewhere."""
