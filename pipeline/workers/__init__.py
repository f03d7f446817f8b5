"""The pipeline on Ray: a pool of encode workers, the decode tasks that feed them, and the dispatch of shards.

    driver (dispatch)  -- shards -->  EncodeWorker, one per GPU or per CPU core  -- commit markers -->  driver
                                           |  ^
                                  entries  v  |  uint8 pixels, a few batches ahead
                                       decode tasks, on the CPUs of every node

The driver never sees an image, and does not import torch: hardware choices must not depend on a head node without a
GPU.
"""
