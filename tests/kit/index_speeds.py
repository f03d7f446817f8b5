"""Speeds of indexes on a machine, given instead of measured."""

from indexer.planning.speeds import Calibration, ScanSpeed, SearchSpeed


def scan(call_us, list_us, row_ns, candidate_us):
    return ScanSpeed(call_us=call_us, list_us=list_us, row_ns=row_ns, candidate_us=candidate_us)


def speeds(dim):
    """Of 2 cores of an Intel Xeon with AVX-512, rounded."""
    wide = dim / 192
    return Calibration(
        assign_gmacs=15,
        cached=SearchSpeed(
            coarse_call_us=5,
            coarse_gmacs=7,
            scan={
                "fp32": scan(5, 0.3, 30 * wide, 0.2),
                "fp16": scan(5, 0.1, 20 * wide, 0.3),
                "SQ8": scan(5, 0.1, 18 * wide, 0.3),
                "PQ4": scan(15, 0.2, 1.8 * wide, 0.07),
                "RaBitQ2": scan(20, 1.1, 7 * wide, 0.9),
                "RaBitQ4": scan(60, 1.2, 20 * wide, 5.0),
            },
            graph_us=0.6 * wide,
        ),
        uncached=SearchSpeed(
            coarse_call_us=30,
            coarse_gmacs=3,
            scan={
                "fp32": scan(50, 0.4, 70 * wide, 0.3),
                "fp16": scan(50, 0.1, 44 * wide, 0.5),
                "SQ8": scan(60, 0.1, 30 * wide, 0.5),
                "PQ4": scan(50, 0.3, 5 * wide, 0.1),
                "RaBitQ2": scan(90, 1.2, 15 * wide, 1.0),
                "RaBitQ4": scan(110, 1.2, 24 * wide, 5.0),
            },
            graph_us=1.3 * wide,
        ),
        encode_us={
            "fp32": 0.2 * wide,
            "fp16": 0.4 * wide,
            "SQ8": 0.5 * wide,
            "PQ4": 5 * wide,
            "RaBitQ2": 18 * wide,
            "RaBitQ4": 34 * wide,
        },
        flat_row_ns={"fp32": 60 * wide, "fp16": 20 * wide},
        pq_train_s=0.007,
        graph_add_us=60 * wide,
        graph_rows=3_000,
        rescore_call_us=20,
        rescore_us=0.4 * wide,
        read_mb_s=1_000,
        write_mb_s=1_000,
    )
