"""What every word of the report means."""

from query.evaluation.results import Results

_ALWAYS = """
Unpruned model: The model as open_clip runs it, with all tokens. It is the baseline of every difference and
speed-up.

Condition: One way to embed and search: a model, a policy, an adapter, an input size, a number format, and perhaps
an index.

Rival: A simple alternative that every sweep measures too: down-scaled input, random and grid dropping, bipartite
merging, the reference method.

R@k: Recall at k from text to image: the share of queries with a right image among the first k.
`image_retrieval_recall@k` in files. “Image to text” is the other way round, `text_retrieval_recall@k`.

Point: One hundredth: from 50 % to 49 % is a loss of one point.

Median rank, MRR: The median, over queries, of the rank of the best right answer, and the mean of 1 / rank.

nDCG@10: Discounted gain of the first 10 answers, as a share of the best that is possible. It takes graded relevance
into account.

p5: The 5th percentile over queries of the share of right answers among the first 10: how queries fare that lose
most.

Strict: A wrong image with the same score as the right one ranks before it. Every number is strict unless it says
otherwise.

Expected: The mean over all orders of images with the same score.

Epsilon: A right image counts as found if its score is within {epsilon:g} of the k-th one.

Duplicates: Near-duplicates of a right image count as right, too: images whose cosine to it is {cosine:g} or more under
the unpruned model.

Interval: Where the true number lies, with 95 % confidence. Intervals of recall and of differences resample images
2,000 times, with all queries of an image together, and the same draws for all conditions. Those of speed are over
timed rounds.

Exact: Where fewer than 20 images differ, resampling would be too sure of itself. This interval is computed instead,
and errs on the wide side.

Visible from: The smallest difference that this sample would have shown in 80 % of repetitions. It stands beside
each difference that may be 0.

Images/s: Images per second through the image tower alone: no decoding, no search.

Speed-up: Images per second against the unpruned model in the same timed round; the geometric mean over rounds.

Fewer multiply-adds: Multiply-adds of the unpruned image tower, divided by those of the condition. What a speed-up
would be if nothing else took time.

Tokens left: Tokens in the last block of the image tower.

Front: The conditions that no other one beats in both speed and recall.

To be sure, take: The fastest condition whose whole interval is within the loss. The one under “take” is within it
by the measured value alone.

Front at this loss: How fast a front that loses at most so many points is. Its interval comes from a new front for
each resampling, so it includes the doubt about which conditions are on it.

Logit scale: Recall is drawn by log(recall / (1 - recall)): from 98 % to 99 % is as far as from 2 % to 1 %, since
either halves or doubles the misses or hits.

Overlap, rank-biased overlap: Agreement of the answers with those of the unpruned model. The second gives more
weight to the first ranks.

Cosine: Between the embedding of an image and its embedding by the unpruned model. 5 % of images have a smaller one
than the 5th percentile.
"""
_OF_CLASSES = """
Accuracy@k: The share of images whose own class is among the k classes that fit them best.
"""
_OF_DISTRACTORS = """
Distractor: An image that answers no query. It makes the gallery larger, and the task harder.
"""
_OF_LOSSES = """
Step: What one change alone costs or brings back. Steps use the same resampling, so they add up. Each operating
point of an index is a step from exact search over the same vectors.
"""
_OF_8_BITS = """
int8, fp8: The linear layers of the image tower multiply numbers of 8 bits, integers on a CPU and floats on a GPU. The
rest of the tower and the text tower stay in float.

Calibration: The range that int8 rounds each layer's input in, measured on a sample of images before anything else.

The same in float: The condition that differs by the number format alone. Speed-ups over it are of the same timed
rounds, differences of the same queries, cosines of the same images.
"""
_OF_MIXED = """
Fair share: The share of the first k that the images of one condition would get if all images were embedded by the
unpruned model.
"""
_OF_GATES = """
OK, FAIL, DRIFT: A gate is OK if the whole interval is inside its bound, FAIL if all of it is outside, and DRIFT
otherwise.
"""


def definitions(results: Results) -> list[tuple[str, str]]:
    """Each word and what it means: those that every report has, then those that this one needs."""
    data = results.record.data
    more = [
        (_OF_CLASSES, any(one.kind == "classes" for one in data)),
        (_OF_DISTRACTORS, any(one.counts.get("num_distractors") for one in data)),
        (_OF_LOSSES, bool(results.decompositions)),
        (_OF_8_BITS, any(one.condition.has_8_bits for one in results.conditions)),
        (_OF_MIXED, bool(results.mixed)),
        (_OF_GATES, results.gates is not None),
    ]
    needed = "\n".join([_ALWAYS, *(text for text, is_needed in more if is_needed)])
    epsilon = results.record.grid.get("epsilon", 1e-3)
    needed = needed.replace("{epsilon:g}", f"{epsilon:g}").replace("{cosine:g}", f"{results.record.duplicate_cosine:g}")
    paragraphs = needed.strip().split("\n\n")
    pairs = (" ".join(paragraph.split()).partition(": ") for paragraph in paragraphs)
    return [(word, text) for word, _, text in pairs]
