"""What a training costs before it is begun: parameters, memory and arithmetic, counted from its shapes."""
