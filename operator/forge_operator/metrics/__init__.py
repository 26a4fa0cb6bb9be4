"""What Prometheus and the kubelet ask the operator."""
