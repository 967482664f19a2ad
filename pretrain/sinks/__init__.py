"""Where else the numbers of a training go: TensorBoard, MLflow, Weights & Biases, trackio; off by default."""
