"""Why a target answers otherwise than its source: the step, the cause and the layer, found by experiment."""
