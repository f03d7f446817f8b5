"""The pipeline on Ray: a pool of encode workers, the decode tasks that feed them, and the shards handed out to them.

    driver (dispatch)  -- shards -->  EncodeWorker, one per GPU or per CPU core  -- commit markers -->  driver
                                           |  ^
                                  entries  v  |  uint8 pixels, a few batches ahead
                                       decode tasks, on the CPUs of every node

The driver never sees an image. It does not import torch either: a head node without a GPU decides nothing.
"""
