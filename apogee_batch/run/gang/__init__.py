"""Training by several workers: ranks that share each batch, and the driver that keeps them together."""
