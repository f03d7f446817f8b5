"""Runs in an environment of its own, where CLIP_benchmark and pytrec_eval are: what they measure, as JSON.

python judged_elsewhere.py clip_benchmark VECTORS.npz     vectors of images and of their captions
python judged_elsewhere.py pytrec_eval QRELS RUN
"""

import json
import sys


def clip_benchmark(path):
    """Recall by CLIP_benchmark's own `evaluate`, of a model that returns its inputs."""
    import numpy as np
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    class Given:
        encode_image = encode_text = staticmethod(lambda vectors: vectors)

    found = {name: torch.from_numpy(values) for name, values in np.load(path).items()}
    captions = [found["texts"][found["images_of_texts"] == image] for image in range(len(found["images"]))]
    batches = [
        (found["images"][first : first + 16], captions[first : first + 16]) for first in range(0, len(captions), 16)
    ]
    return evaluate(Given, batches, torch.stack, "cpu", amp=False, recall_k_list=[1, 5, 10])


def pytrec_eval(qrels, run):
    """Means over the queries of trec_eval's measures."""
    import pytrec_eval

    with open(qrels) as file:
        judged = pytrec_eval.parse_qrel(file)
    with open(run) as file:
        ranked = pytrec_eval.parse_run(file)
    cuts = "1,3,5,10,20,100"
    measures = {f"{name}.{cuts}" for name in ("ndcg_cut", "map_cut", "recall", "P", "success")} | {"recip_rank"}
    by_query = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(ranked)
    names = next(iter(by_query.values()))
    means = {name: sum(found[name] for found in by_query.values()) / len(by_query) for name in names}
    return means | {"num_queries": len(by_query)}


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
