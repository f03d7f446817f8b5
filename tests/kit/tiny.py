"""The configuration of the tiny CLIP that most tests use."""

TINY_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        # 16 patches: few enough to check by hand, enough for keep ratios to matter
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 4, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
