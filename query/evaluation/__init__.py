"""The harness behind `clipsieve sweep` and `clipsieve evaluate`: raw results first, then everything computed from them.

`sweep.sweep` tells the story. A grid (`grid`) names conditions and data sets (`data`); `running` embeds, ranks
(`ranking`) and times, and writes raw files (`raw`); `metrics` reads only those, with the intervals of `statistics`;
`report`, `gates` and `exports` show, judge and hand on the results.
"""
