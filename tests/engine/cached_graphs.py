"""Lets vLLM load the graphs it compiled for a CPU and stored.

Stock vLLM (0.32) stores them and then finds that the loaded function lacks ``finalize_loading``,
which only graphs split in pieces have, so it compiles again each time. With a method that does
nothing the graphs load, as they do on other platforms.
"""

import torch

load = torch.compiler.load_compiled_function


def load_whole_graph(*args, **kwargs):
    loaded = load(*args, **kwargs)
    function = loaded._artifacts.compiled_fn
    if not hasattr(function, "finalize_loading"):
        function.finalize_loading = lambda config: None
    return loaded


torch.compiler.load_compiled_function = load_whole_graph
