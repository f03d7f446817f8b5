"""Image towers by 8-bit products: ranges of activations, the products, and the blocks made of them."""
