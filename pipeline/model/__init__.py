"""The pruned CLIP: loading (`load`), token maths (`tokens`), attachment (`prune`), cost (`flops`)."""
