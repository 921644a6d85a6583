"""Why a target answers otherwise than its source: the step, the cause and the layer, found by experiment.

`graph` reads and changes graphs, `mistake` supposes, `experiment` decides; what lies here climbs, tells and advises.
"""
